// java -cp nimbus-jose-jwt.jar Verify.java JWKS_URL TOKEN: says whose guest token it is, or why it is refused.
// Needs com.nimbusds:nimbus-jose-jwt. Not run by the tests: the library is in no package registry of theirs.
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import java.net.URI;
import java.util.Set;

class Verify {
    public static void main(String[] args) throws Exception {
        // Cached; fetched again for a kid that is not known.
        var keys = JWKSourceBuilder.<SecurityContext>create(URI.create(args[0]).toURL()).build();
        var rules = new DefaultJWTClaimsVerifier<SecurityContext>(
                new JWTClaimsSet.Builder().build(), Set.of("guestId", "iat", "exp"));
        rules.setMaxClockSkew(60); // two clocks may be a minute apart
        var processor = new DefaultJWTProcessor<SecurityContext>();
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.RS256, keys)); // whatever the token says
        processor.setJWTClaimsSetVerifier(rules);
        try {
            System.out.println(processor.process(args[1], null).getStringClaim("guestId"));
        } catch (Exception refused) {
            System.err.println("refused: " + refused.getMessage());
            System.exit(1);
        }
    }
}
