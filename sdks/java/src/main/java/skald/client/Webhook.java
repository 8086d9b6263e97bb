package skald.client;

import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.function.UnaryOperator;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Verifies webhooks that are signed as in Standard Webhooks. */
public final class Webhook {
  /** How far a webhook's time and ours may lie apart: an old one may be somebody's recording. */
  private static final Duration TOLERANCE = Duration.ofMinutes(5);

  private Webhook() {}

  /**
   * Throws unless the body was signed with the secret ({@code whsec_..}) within five minutes of now.
   *
   * @param header gives a header by its name, null if there is none
   * @param body the bytes as received: parsing and writing it again changes them
   */
  public static void verify(String secret, UnaryOperator<String> header, byte[] body, Instant now)
      throws InvalidWebhookException {
    String id = required(header, "webhook-id");
    String timestamp = required(header, "webhook-timestamp");
    String signatures = required(header, "webhook-signature");
    if (!timestamp.matches("[0-9]{1,10}")) {
      throw new InvalidWebhookException("the timestamp is not a number");
    }
    Instant signedAt = Instant.ofEpochSecond(Long.parseLong(timestamp));
    if (Duration.between(signedAt, now).abs().compareTo(TOLERANCE) > 0) {
      throw new InvalidWebhookException("the timestamp is too far from now");
    }
    byte[] expected = sign(secret, id + "." + timestamp + ".", body);
    for (String signature : signatures.split(" ")) {
      // Compares in constant time.
      if (signature.startsWith("v1,") && MessageDigest.isEqual(decode(signature.substring(3)), expected)) {
        return;
      }
    }
    throw new InvalidWebhookException("no signature is by this secret");
  }

  private static String required(UnaryOperator<String> header, String name) throws InvalidWebhookException {
    String value = header.apply(name);
    if (value == null) {
      throw new InvalidWebhookException("the header " + name + " is missing");
    }
    return value;
  }

  private static byte[] sign(String secret, String head, byte[] body) {
    byte[] key = Base64.getDecoder().decode(secret.replaceFirst("^whsec_", ""));
    try {
      Mac mac = Mac.getInstance("HmacSHA256");
      mac.init(new SecretKeySpec(key, "HmacSHA256"));
      mac.update(head.getBytes(StandardCharsets.UTF_8));
      return mac.doFinal(body);
    } catch (GeneralSecurityException impossible) {
      throw new IllegalStateException("every Java has HmacSHA256", impossible);
    }
  }

  /** Empty if it is not base64. */
  private static byte[] decode(String text) {
    try {
      return Base64.getDecoder().decode(text);
    } catch (IllegalArgumentException notBase64) {
      return new byte[0];
    }
  }

  /** Do not believe it. */
  public static final class InvalidWebhookException extends Exception {
    InvalidWebhookException(String reason) {
      super(reason);
    }
  }
}
