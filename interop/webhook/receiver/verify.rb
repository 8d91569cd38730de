# ruby verify.rb SECRET ID TIMESTAMP SIGNATURE < BODY
# Verifies a webhook. Needs only the standard library.
require "base64"
require "openssl"

secret, id, timestamp, signatures = ARGV
body = $stdin.binmode.read # the unmodified bytes of the body: in Rails, request.raw_post
abort "refused: the timestamp is more than five minutes from now" if (Time.now.to_i - Integer(timestamp, 10)).abs > 300
key = Base64.strict_decode64(secret.delete_prefix("whsec_"))
expected = "v1," + Base64.strict_encode64(OpenSSL::HMAC.digest("SHA256", key, "#{id}.#{timestamp}.".b + body))
matches = signatures.split.any? { |sent| sent.size == expected.size && OpenSSL.fixed_length_secure_compare(sent, expected) }
abort "refused: no signature matches" unless matches
puts "verified"
