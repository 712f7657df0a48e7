<?php // Creates a ticket: php ticket.php. The secret and the names are those of presignd's variables.

function variable($name)
{
    if (!getenv($name)) {
        fwrite(STDERR, "$name is not set; a ticket needs the value that presignd has\n");
        exit(1);
    }
    return getenv($name);
}

[$secret, $now] = [variable('JWT_SECRET'), time()];
$claims = ['iss' => variable('JWT_ISSUER'), 'aud' => variable('JWT_AUDIENCE'), 'sub' => 'user-17', 'iat' => $now, 'exp' => $now + 3600];
$claims['upload'] = ['max_size' => 5242880, 'content_types' => ['image/*']];
// Sign:
$part = fn ($value) => rtrim(strtr(base64_encode($value), '+/', '-_'), '=');
$text = $part('{"alg":"HS256","typ":"JWT"}') . '.' . $part(json_encode($claims));
$ticket = $text . '.' . $part(hash_hmac('sha256', $text, $secret, true));

echo $ticket, "\n";
