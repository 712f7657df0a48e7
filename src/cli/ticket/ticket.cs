// Creates a ticket: dotnet run ticket.cs. The secret and the names are those of presignd's variables.
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

string Variable(string name) => Environment.GetEnvironmentVariable(name) is { Length: > 0 } value ? value : throw new($"{name} is not set");
var (secret, now) = (Variable("JWT_SECRET"), DateTimeOffset.UtcNow.ToUnixTimeSeconds());
var upload = new { max_size = 5242880, content_types = new[] { "image/*" } };
var claims = new { iss = Variable("JWT_ISSUER"), aud = Variable("JWT_AUDIENCE"), sub = "user-17", iat = now, exp = now + 3600, upload };
// Sign:
string Part(byte[] value) => Convert.ToBase64String(value).TrimEnd('=').Replace('+', '-').Replace('/', '_');
var text = Part("{\"alg\":\"HS256\",\"typ\":\"JWT\"}"u8.ToArray()) + "." + Part(JsonSerializer.SerializeToUtf8Bytes(claims));
var ticket = text + "." + Part(HMACSHA256.HashData(Encoding.UTF8.GetBytes(secret), Encoding.UTF8.GetBytes(text)));

Console.WriteLine(ticket);
