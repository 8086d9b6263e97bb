package skald.client;

import java.net.http.HttpClient;
import java.time.Duration;
import java.time.Instant;
import java.util.UUID;
import skald.client.generated.ApiClient;
import skald.client.generated.ApiException;
import skald.client.generated.api.AdminApi;
import skald.client.generated.api.CallbacksApi;
import skald.client.generated.api.DefinitionsApi;
import skald.client.generated.api.EventsApi;
import skald.client.generated.api.GroupsApi;
import skald.client.generated.api.OperationsApi;
import skald.client.generated.api.SagasApi;
import skald.client.generated.api.WebhooksApi;
import skald.client.generated.model.Saga;
import skald.client.generated.model.StartSagaRequest;

/**
 * Every call of the API, by topic. Starts get an idempotency key, and refusals for now are repeated.
 *
 * <p>The body of an {@link ApiException} is what the server says.
 */
public final class Skald {
  /** The longest that one request may wait. */
  private static final Duration WAIT_MAX = Duration.ofSeconds(60);

  /** Between looks at a saga whose waits end at once, as a parked one's do. */
  private static final Duration PAUSE = Duration.ofMillis(500);

  private final ApiClient client;

  /** A client of the server at this URL, as the options say. */
  public Skald(String baseUrl, Options options) {
    HttpClient http = new RepeatingHttpClient(HttpClient.newHttpClient(), options);
    client =
        new ApiClient() {
          @Override
          public HttpClient getHttpClient() {
            return http;
          }
        };
    client.updateBaseUri(baseUrl.replaceAll("/$", ""));
    if (options.apiKey() != null) {
      client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + options.apiKey()));
    }
  }

  /** A client of the server at this URL, without credentials. */
  public Skald(String baseUrl) {
    this(baseUrl, Options.DEFAULT);
  }

  public SagasApi sagas() {
    return new SagasApi(client);
  }

  public AdminApi admin() {
    return new AdminApi(client);
  }

  public CallbacksApi callbacks() {
    return new CallbacksApi(client);
  }

  public DefinitionsApi definitions() {
    return new DefinitionsApi(client);
  }

  public EventsApi events() {
    return new EventsApi(client);
  }

  public GroupsApi groups() {
    return new GroupsApi(client);
  }

  public OperationsApi operations() {
    return new OperationsApi(client);
  }

  public WebhooksApi webhooks() {
    return new WebhooksApi(client);
  }

  /**
   * Starts a saga; the answer waits for its end for a while, so look at the status.
   *
   * @param idempotencyKey the same key gives the same saga; one is made if it is null
   */
  public Saga start(String definition, Object input, String idempotencyKey) throws ApiException {
    StartSagaRequest request = new StartSagaRequest().definition(definition).input(input);
    return sagas()
        .startAnySaga(
            SagasApi.APIStartAnySagaRequest.newBuilder()
                .startSagaRequest(request)
                .idempotencyKey(idempotencyKey)
                .build());
  }

  /**
   * Waits until the saga has ended: completed, compensated or abandoned.
   *
   * @throws StillRunningException when that takes longer than the timeout
   */
  public Saga waitUntilEnded(UUID id, Duration timeout)
      throws ApiException, StillRunningException, InterruptedException {
    Instant until = Instant.now().plus(timeout);
    while (true) {
      long leftSeconds = Math.max(0, Duration.between(Instant.now(), until).toSeconds() + 1);
      String prefer = "wait=" + Math.min(leftSeconds, WAIT_MAX.toSeconds());
      Saga saga = sagas().getSaga(SagasApi.APIGetSagaRequest.newBuilder().id(id).prefer(prefer).build());
      if (saga.getEndedAt() != null) {
        return saga;
      }
      if (!Instant.now().isBefore(until)) {
        throw new StillRunningException(saga);
      }
      Thread.sleep(PAUSE.toMillis());
    }
  }

  /**
   * How to talk to a server.
   *
   * @param apiKey sent as bearer token with every request, unless null
   * @param attemptsMax requests made at most for one call; 1 repeats nothing
   * @param waitMax the longest wait before a repetition; a longer {@code Retry-After} ends the repeating
   */
  public record Options(String apiKey, int attemptsMax, Duration waitMax) {
    public static final Options DEFAULT = new Options(null, 5, Duration.ofMinutes(1));

    public Options withApiKey(String apiKey) {
      return new Options(apiKey, attemptsMax, waitMax);
    }

    public Options withAttemptsMax(int attemptsMax) {
      return new Options(apiKey, attemptsMax, waitMax);
    }

    public Options withWaitMax(Duration waitMax) {
      return new Options(apiKey, attemptsMax, waitMax);
    }
  }

  /** The saga had not ended in time. */
  public static final class StillRunningException extends Exception {
    private final transient Saga saga;

    StillRunningException(Saga saga) {
      super("saga " + saga.getId() + " is still " + saga.getStatus());
      this.saga = saga;
    }

    /** How it was last seen. */
    public Saga saga() {
      return saga;
    }
  }
}
