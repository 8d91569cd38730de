# ruby verify.rb JWKS_URL TOKEN: says whose guest token it is, or why it is refused. Needs jwt.
require "json"
require "jwt"
require "net/http"

url, token = ARGV
begin
  # Cache it for as long as GUESTLANE_SIGNING_KEY_PUBLISH_LEAD at most; fetch it again for a kid that is not known.
  keys = JSON.parse(Net::HTTP.get(URI(url)), symbolize_names: true)
  claims, = JWT.decode(token, nil, true,
                       algorithms: ["RS256"], # whatever the token says
                       jwks: keys,
                       leeway: 60, # two clocks may be a minute apart
                       verify_iat: false, # refuses a clock that is a second behind, whatever the leeway
                       required_claims: %w[guestId iat exp])
  missing = %w[guestId iat exp].reject { |name| claims.key?(name) }
  raise JWT::DecodeError, "missing #{missing.join(', ')}" unless missing.empty?
  raise JWT::DecodeError, "guestId is not a text" unless claims["guestId"].is_a?(String)
  raise JWT::DecodeError, "iat is in the future" if claims["iat"] > Time.now.to_i + 60
  puts claims["guestId"]
rescue JWT::DecodeError => e
  abort "refused: #{e.class}: #{e.message}"
end
