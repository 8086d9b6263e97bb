package skald.client;

import java.io.IOException;
import java.io.InputStream;
import java.net.Authenticator;
import java.net.CookieHandler;
import java.net.ProxySelector;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.DateTimeException;
import java.time.Duration;
import java.time.Instant;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.ThreadLocalRandom;
import java.util.regex.Pattern;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;

/**
 * Repeats what was refused for now, and gives starts and operators' commands a key that makes repeating them harmless.
 *
 * <pre>
 * answer     repeated
 * 429        always: nothing was done
 * 503        unless it is a POST without Idempotency-Key: it may have been done
 * no answer  like 503
 * </pre>
 */
final class RepeatingHttpClient extends HttpClient {
  private static final String KEY_HEADER = "Idempotency-Key";
  private static final Duration WAIT_FIRST = Duration.ofMillis(200);

  /** Starts, and operators' commands to sagas: the calls that take a key. */
  private static final Pattern TAKES_KEY = Pattern.compile("/sagas(/[^/]+)?$|/admin/sagas/.+$");

  private final HttpClient inner;
  private final Skald.Options options;

  RepeatingHttpClient(HttpClient inner, Skald.Options options) {
    this.inner = inner;
    this.options = options;
  }

  @Override
  public <T> HttpResponse<T> send(HttpRequest original, HttpResponse.BodyHandler<T> handler)
      throws IOException, InterruptedException {
    HttpRequest request = withKey(original);
    boolean harmless = !request.method().equals("POST") || request.headers().firstValue(KEY_HEADER).isPresent();
    for (int attempt = 1; ; attempt++) {
      boolean isLast = attempt >= options.attemptsMax();
      Duration wait;
      try {
        HttpResponse<T> answer = inner.send(request, handler);
        int status = answer.statusCode();
        boolean refused = status == 429 || (status == 503 && harmless);
        wait = retryAfter(answer).orElse(backoff(attempt));
        if (isLast || !refused || wait.compareTo(options.waitMax()) > 0) {
          return answer;
        }
        if (answer.body() instanceof InputStream body) {
          body.close();
        }
      } catch (IOException error) {
        if (isLast || !harmless) {
          throw error;
        }
        wait = backoff(attempt);
      }
      Thread.sleep(wait.toMillis());
    }
  }

  private static HttpRequest withKey(HttpRequest request) {
    boolean lacksKey =
        request.method().equals("POST")
            && TAKES_KEY.matcher(request.uri().getPath()).find()
            && request.headers().firstValue(KEY_HEADER).isEmpty();
    if (!lacksKey) {
      return request;
    }
    return HttpRequest.newBuilder(request, (name, value) -> true)
        .header(KEY_HEADER, UUID.randomUUID().toString())
        .build();
  }

  /** What the answer asks for, in seconds or as a date. */
  private static Optional<Duration> retryAfter(HttpResponse<?> answer) {
    return answer.headers().firstValue("Retry-After").flatMap(RepeatingHttpClient::parseWait);
  }

  private static Optional<Duration> parseWait(String text) {
    if (text.matches("\\d{1,9}")) {
      return Optional.of(Duration.ofSeconds(Long.parseLong(text)));
    }
    try {
      Instant date = ZonedDateTime.parse(text, DateTimeFormatter.RFC_1123_DATE_TIME).toInstant();
      Duration wait = Duration.between(Instant.now(), date);
      return Optional.of(wait.isNegative() ? Duration.ZERO : wait);
    } catch (DateTimeException notADate) {
      return Optional.empty();
    }
  }

  /** Twice as long each time, between the half of it and all, so that clients do not come back together. */
  private static Duration backoff(int attempt) {
    long doubled = WAIT_FIRST.toMillis() << Math.min(attempt - 1, 20);
    return Duration.ofMillis(doubled / 2 + ThreadLocalRandom.current().nextLong(doubled / 2));
  }

  /** Repeats nothing; the generated calls do not use it. */
  @Override
  public <T> CompletableFuture<HttpResponse<T>> sendAsync(HttpRequest request, HttpResponse.BodyHandler<T> handler) {
    return inner.sendAsync(withKey(request), handler);
  }

  /** Repeats nothing; the generated calls do not use it. */
  @Override
  public <T> CompletableFuture<HttpResponse<T>> sendAsync(
      HttpRequest request, HttpResponse.BodyHandler<T> handler, HttpResponse.PushPromiseHandler<T> pushes) {
    return inner.sendAsync(withKey(request), handler, pushes);
  }

  @Override
  public Optional<CookieHandler> cookieHandler() {
    return inner.cookieHandler();
  }

  @Override
  public Optional<Duration> connectTimeout() {
    return inner.connectTimeout();
  }

  @Override
  public Redirect followRedirects() {
    return inner.followRedirects();
  }

  @Override
  public Optional<ProxySelector> proxy() {
    return inner.proxy();
  }

  @Override
  public SSLContext sslContext() {
    return inner.sslContext();
  }

  @Override
  public SSLParameters sslParameters() {
    return inner.sslParameters();
  }

  @Override
  public Optional<Authenticator> authenticator() {
    return inner.authenticator();
  }

  @Override
  public Version version() {
    return inner.version();
  }

  @Override
  public Optional<Executor> executor() {
    return inner.executor();
  }
}
