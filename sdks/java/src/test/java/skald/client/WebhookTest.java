package skald.client;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

class WebhookTest {
  record Case(String name, boolean valid, String secret, long now, Map<String, String> headers, String body) {}

  record Vectors(String comment, List<Case> cases) {}

  @TestFactory
  Stream<DynamicTest> whatIsBelieved() throws Exception {
    Vectors vectors = new ObjectMapper().readValue(new File("../webhook-vectors.json"), Vectors.class);
    return vectors.cases().stream().map(of -> DynamicTest.dynamicTest(of.name(), () -> check(of)));
  }

  private static void check(Case of) {
    byte[] body = of.body().getBytes(StandardCharsets.UTF_8);
    Instant now = Instant.ofEpochSecond(of.now());
    if (of.valid()) {
      assertDoesNotThrow(() -> Webhook.verify(of.secret(), of.headers()::get, body, now));
    } else {
      assertThrows(
          Webhook.InvalidWebhookException.class,
          () -> Webhook.verify(of.secret(), of.headers()::get, body, now));
    }
  }
}
