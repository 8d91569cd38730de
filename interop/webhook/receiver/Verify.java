// java Verify.java SECRET ID TIMESTAMP SIGNATURE < BODY
// Verifies a webhook. Needs only the JDK.
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.Base64;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

class Verify {
    static final long TOLERANCE_SECONDS = 300;

    static String refusal(String secret, String id, String timestamp, String signatures, byte[] body)
            throws GeneralSecurityException {
        long age = Instant.now().getEpochSecond() - Long.parseLong(timestamp);
        if (Math.abs(age) > TOLERANCE_SECONDS) return "the timestamp is more than five minutes from now";
        byte[] key = Base64.getDecoder().decode(secret.replaceFirst("^whsec_", ""));
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        mac.update((id + "." + timestamp + ".").getBytes());
        byte[] expected = mac.doFinal(body);
        for (String signature : signatures.split(" ")) {
            if (!signature.startsWith("v1,")) continue;
            if (MessageDigest.isEqual(Base64.getDecoder().decode(signature.substring(3)), expected)) return null;
        }
        return "no signature matches";
    }

    public static void main(String[] args) throws Exception {
        byte[] body = System.in.readAllBytes(); // the unmodified bytes of the body: request.getInputStream().readAllBytes()
        String refusal = refusal(args[0], args[1], args[2], args[3], body);
        if (refusal != null) {
            System.err.println("refused: " + refusal);
            System.exit(1);
        }
        System.out.println("verified");
    }
}
