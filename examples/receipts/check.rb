# Checks a receipt: ruby check.rb KEYS RECEIPT. KEYS is a copy of /.well-known/jwks.json, in a file.
require "json"
require "openssl"

def decoded(part) = part.tr("-_", "+/").ljust((part.size + 3) / 4 * 4, "=").unpack1("m0")

# The claims of a receipt that one of the keys signed.
def claims_of(receipt, keys)
  header, claims, signature, *more = receipt.split(".", -1)
  raise "not a receipt" unless signature && more.empty?

  names = JSON.parse(decoded(header))
  key = keys.find { |key| key["kid"] == names["kid"] }
  raise "not a receipt of these keys" unless names["alg"] == "EdDSA" && names["typ"] == "upload-receipt+jwt" && key

  # What is in front of the 32 bytes of the key says that it is one of Ed25519 (RFC 8410).
  public = OpenSSL::PKey.read(["302a300506032b6570032100"].pack("H*") + decoded(key["x"]))
  raise "the signature is not valid" unless public.verify(nil, decoded(signature), "#{header}.#{claims}")

  JSON.parse(decoded(claims))
end

puts JSON.generate(claims_of(ARGV[1], JSON.parse(File.read(ARGV[0]))["keys"]))
