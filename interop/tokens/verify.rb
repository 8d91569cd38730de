# ruby verify.rb JWKS_URL TOKEN
# Verifies a guest token and prints the guest ID, or the reason for the refusal. Needs jwt.
require "json"
require "jwt"
require "net/http"

url, token = ARGV
begin
  # Cache the key set for at most GUESTLANE_SIGNING_KEY_PUBLISH_LEAD; fetch it again for an unknown
  # kid.
  keys = JSON.parse(Net::HTTP.get(URI(url)), symbolize_names: true)
  claims, = JWT.decode(token, nil, true,
                       algorithms: ["RS256"], # never the algorithm that the token names
                       jwks: keys,
                       leeway: 60, # allowed clock difference: one minute
                       verify_iat: false, # it would ignore the leeway and refuse a clock that is one second behind
                       required_claims: %w[guestId iat exp])
  missing = %w[guestId iat exp].reject { |name| claims.key?(name) }
  raise JWT::DecodeError, "missing #{missing.join(', ')}" unless missing.empty?
  raise JWT::DecodeError, "guestId is not a text" unless claims["guestId"].is_a?(String)
  raise JWT::DecodeError, "iat is in the future" if claims["iat"] > Time.now.to_i + 60
  puts claims["guestId"]
rescue JWT::DecodeError => e
  abort "refused: #{e.class}: #{e.message}"
end
