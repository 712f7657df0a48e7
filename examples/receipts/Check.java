// Checks a receipt: java Check.java KEYS RECEIPT. KEYS is a copy of /.well-known/jwks.json, in a file.
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.Signature;
import java.security.spec.X509EncodedKeySpec;
import java.util.Base64;
import java.util.HexFormat;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;

class Check {
    // Java has no JSON of its own; with a library, read `x` of each key, and `typ` and `alg` of the header.
    private static final Pattern KEY = Pattern.compile("\"x\":\\s*\"([\\w-]{43})\"");
    private static final Pattern RECEIPT = Pattern.compile("\"typ\":\"upload-receipt\\+jwt\"");

    /** The claims, as JSON, of a receipt that one of the keys signed. */
    static String claimsOf(String receipt, String jwks) throws Exception {
        String[] parts = receipt.split("\\.", -1);
        if (parts.length != 3) {
            throw new SecurityException("not a receipt");
        }
        var decoder = Base64.getUrlDecoder();
        byte[] signed = (parts[0] + "." + parts[1]).getBytes(StandardCharsets.US_ASCII);
        for (MatchResult x : KEY.matcher(jwks).results().toList()) {
            // What is in front of the 32 bytes of the key says that it is one of Ed25519 (RFC 8410).
            byte[] key = HexFormat.of().parseHex("302a300506032b6570032100" + HexFormat.of().formatHex(decoder.decode(x.group(1))));
            Signature check = Signature.getInstance("Ed25519");
            check.initVerify(KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(key)));
            check.update(signed);
            // The header is trusted once its signature is: these keys sign with EdDSA alone.
            if (check.verify(decoder.decode(parts[2])) && RECEIPT.matcher(text(decoder.decode(parts[0]))).find()) {
                return text(decoder.decode(parts[1]));
            }
        }
        throw new SecurityException("none of these keys signed it");
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }

    public static void main(String[] args) throws Exception {
        System.out.println(claimsOf(args[1], Files.readString(Path.of(args[0]))));
    }
}
