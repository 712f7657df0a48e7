<?php
// An upload with the PHP library that openapi-generator writes. Guzzle is that of Debian.

declare(strict_types=1);

use OpenAPI\Client\Api\UploadApi;
use OpenAPI\Client\ApiException;
use OpenAPI\Client\Configuration;
use OpenAPI\Client\Model\FileRequest;
use OpenAPI\Client\Model\Problem;
use OpenAPI\Client\Model\SignRequest;
use OpenAPI\Client\Model\VerifyRequest;

// As an exception, also from a warning such as that of a pattern that PCRE refuses.
set_error_handler(fn ($level, $text) => throw new ErrorException($text, 0, $level));

function check(bool $is_true, string $what): void
{
    $is_true or throw new Exception($what);
}

require 'GuzzleHttp/autoload.php';
spl_autoload_register(function (string $class): void {
    $path = __DIR__ . '/../out/openapi-generator/php/lib/' . strtr(substr($class, strlen('OpenAPI\\Client\\')), '\\', '/') . '.php';
    if (is_file($path)) {
        require $path;
    }
});

$http = new GuzzleHttp\Client();
$api = new UploadApi($http, (new Configuration())->setHost($argv[1]));

// The setters compare with the patterns of the document.
$file = (new FileRequest())->setFilename('노트.txt')->setContentType('text/plain; charset=utf-8');
$grant = $api->presignUpload($file);
$sent = $http->request($grant->getMethod(), $grant->getUrl(), ['headers' => $grant->getHeaders(), 'body' => 'hello']);
check($sent->getStatusCode() === 200, 'the store refused the file');

$found = $api->verifyUpload((new VerifyRequest())->setKey($grant->getKey())->setSize(5));
check($found->getSize() === 5, "verified: $found");

foreach (['a/b', '..', "a\0b", "a\x7Fb"] as $name) {
    try {
        $file->setFilename($name);
    } catch (InvalidArgumentException) {
        continue;
    }
    throw new Exception("the pattern accepts $name");
}
// Slashes are valid in a key.
(new SignRequest())->setKey('a/b.jpg');

// A problem has a type, too.
try {
    $api->verifyUpload((new VerifyRequest())->setKey('uploads/missing'));
    throw new Exception('an upload that is missing was verified');
} catch (ApiException $refusal) {
    $problem = $refusal->getResponseObject();
    check($problem instanceof Problem && $problem->getCode() === 'not-uploaded', $refusal->getMessage());
}
