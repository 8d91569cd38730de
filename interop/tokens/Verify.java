// java -cp nimbus-jose-jwt.jar Verify.java JWKS_URL TOKEN
// Verifies a guest token and prints the guest ID, or the reason for the refusal. Needs
// com.nimbusds:nimbus-jose-jwt. The tests do not run this program, because they have no package
// registry with this library.
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
        // The key set is cached, and fetched again for an unknown kid.
        var keys = JWKSourceBuilder.<SecurityContext>create(URI.create(args[0]).toURL()).build();
        var rules = new DefaultJWTClaimsVerifier<SecurityContext>(
                new JWTClaimsSet.Builder().build(), Set.of("guestId", "iat", "exp"));
        rules.setMaxClockSkew(60); // allowed clock difference: one minute
        var processor = new DefaultJWTProcessor<SecurityContext>();
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.RS256, keys)); // never the algorithm that the token names
        processor.setJWTClaimsSetVerifier(rules);
        try {
            System.out.println(processor.process(args[1], null).getStringClaim("guestId"));
        } catch (Exception refused) {
            System.err.println("refused: " + refused.getMessage());
            System.exit(1);
        }
    }
}
