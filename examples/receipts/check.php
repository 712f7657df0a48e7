<?php // Checks a receipt: php check.php KEYS RECEIPT. KEYS is a copy of /.well-known/jwks.json, in a file.

function decoded(string $part): string
{
    return sodium_base642bin($part, SODIUM_BASE64_VARIANT_URLSAFE_NO_PADDING);
}

/** The claims of a receipt that one of the keys signed. */
function claims_of(string $receipt, array $keys): array
{
    $parts = explode('.', $receipt);
    if (count($parts) !== 3) {
        throw new Exception('not a receipt');
    }
    [$header, $claims, $signature] = $parts;
    $names = json_decode(decoded($header), true, flags: JSON_THROW_ON_ERROR);
    $key = array_column($keys, 'x', 'kid')[$names['kid']] ?? null;
    if ($names['alg'] !== 'EdDSA' || $names['typ'] !== 'upload-receipt+jwt' || $key === null) {
        throw new Exception('not a receipt of these keys');
    }
    if (!sodium_crypto_sign_verify_detached(decoded($signature), "$header.$claims", decoded($key))) {
        throw new Exception('the signature is not valid');
    }
    return json_decode(decoded($claims), true, flags: JSON_THROW_ON_ERROR);
}

$keys = json_decode(file_get_contents($argv[1]), true, flags: JSON_THROW_ON_ERROR)['keys'];
echo json_encode(claims_of($argv[2], $keys)), "\n";
