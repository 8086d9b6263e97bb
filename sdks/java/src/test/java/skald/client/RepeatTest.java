package skald.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import skald.client.generated.ApiException;
import skald.client.generated.api.GroupsApi.APIPollGroupRequest;
import skald.client.generated.model.PollRequest;
import skald.client.generated.model.SagaStatus;

/** Against a server that answers as it is told. */
class RepeatTest {
  private static final String SAGA =
      """
      {"id": "01890a5d-ac96-774b-bcce-b302099a8057", "definition": "checkout", "version": 1, "mode": "orchestrated",
       "status": "completed", "state": "DONE", "input": {}, "steps": [], "correlation_id": "c",
       "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:00Z",
       "revision": 1, "something_newer": true}""";
  private static final String PROBLEM =
      """
      {"type": "t", "title": "t", "status": 503, "detail": "later", "code": "overloaded"}""";

  /** With status 0 the server hangs up. */
  private record Answer(int status, int waitSeconds) {}

  private final List<Headers> asked = new CopyOnWriteArrayList<>();
  private HttpServer server;
  private List<Answer> answers;

  @BeforeEach
  void start() throws IOException {
    server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
    server.createContext("/", this::answer);
    server.start();
  }

  @AfterEach
  void stop() {
    server.stop(0);
  }

  private void answer(HttpExchange exchange) throws IOException {
    assertTrue(exchange.getRequestBody().readAllBytes().length > 0);
    Answer of = answers.get(asked.size());
    asked.add(exchange.getRequestHeaders());
    if (of.status() != 0) {
      boolean isGood = of.status() < 300;
      byte[] body = (isGood ? SAGA : PROBLEM).getBytes(StandardCharsets.UTF_8);
      exchange.getResponseHeaders().add("Content-Type", isGood ? "application/json" : "application/problem+json");
      exchange.getResponseHeaders().add("Retry-After", Integer.toString(of.waitSeconds()));
      exchange.sendResponseHeaders(of.status(), body.length);
      exchange.getResponseBody().write(body);
    }
    exchange.close();
  }

  private Skald client(Skald.Options options, Answer... answers) {
    this.answers = List.of(answers);
    asked.clear();
    return new Skald("http://127.0.0.1:" + server.getAddress().getPort(), options);
  }

  private Skald client(Answer... answers) {
    return client(Skald.Options.DEFAULT.withApiKey("k"), answers);
  }

  @Test
  void aStartIsRepeatedUnderOneKeyThatWasMadeForIt() throws Exception {
    Skald skald = client(new Answer(503, 0), new Answer(429, 0), new Answer(0, 0), new Answer(201, 0));
    assertEquals(SagaStatus.COMPLETED, skald.start("checkout", Map.of(), null).getStatus());
    assertEquals(4, asked.size());
    assertEquals(1, asked.stream().map(headers -> headers.getFirst("Idempotency-Key")).distinct().count());
    assertEquals("Bearer k", asked.get(0).getFirst("Authorization"));
  }

  @Test
  void aKeyThatIsThereStays() throws Exception {
    client(new Answer(201, 0)).start("checkout", Map.of(), "mine");
    assertEquals(List.of("mine"), asked.get(0).get("Idempotency-Key"));
  }

  @Test
  void whatMayHaveBeenDoneIsNotRepeatedWithoutAKey() {
    Skald skald = client(new Answer(429, 0), new Answer(503, 0));
    APIPollGroupRequest poll =
        APIPollGroupRequest.newBuilder().name("g").pollRequest(new PollRequest().consumer("c")).build();
    ApiException refused = assertThrows(ApiException.class, () -> skald.groups().pollGroup(poll));
    assertEquals(503, refused.getCode());
    assertTrue(refused.getResponseBody().contains("overloaded"));
    assertEquals(2, asked.size());
    assertFalse(asked.get(0).containsKey("Idempotency-Key"));
  }

  @Test
  void repeatingEnds() {
    Skald skald = client(Skald.Options.DEFAULT.withAttemptsMax(2), new Answer(503, 0), new Answer(503, 0));
    assertThrows(ApiException.class, () -> skald.start("checkout", Map.of(), null));
    assertEquals(2, asked.size());
  }

  @Test
  void aWaitThatIsAskedForIsKeptAndOneThatIsTooLongIsNotBegun() throws Exception {
    long begun = System.nanoTime();
    client(new Answer(503, 1), new Answer(201, 0)).start("checkout", Map.of(), null);
    assertTrue(System.nanoTime() - begun >= 1_000_000_000L);
    Skald skald = client(new Answer(503, 61));
    assertThrows(ApiException.class, () -> skald.start("checkout", Map.of(), null));
  }
}
