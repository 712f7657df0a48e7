# Creates a ticket: ruby ticket.rb. The secret and the names are those of presignd's variables.
require "json"
require "openssl"

variable = ->(name) { ENV[name].to_s.empty? ? abort("#{name} is not set") : ENV[name] }
secret, now = variable.("JWT_SECRET"), Time.now.to_i
claims = { iss: variable.("JWT_ISSUER"), aud: variable.("JWT_AUDIENCE"), sub: "user-17", iat: now, exp: now + 3600 }
claims[:upload] = { max_size: 5_242_880, content_types: ["image/*"] }
# Sign:
part = ->(value) { [value].pack("m0").tr("+/", "-_").delete("=") }
text = [part.('{"alg":"HS256","typ":"JWT"}'), part.(JSON.generate(claims))].join(".")
ticket = [text, part.(OpenSSL::HMAC.digest("SHA256", secret, text))].join(".")

puts ticket
