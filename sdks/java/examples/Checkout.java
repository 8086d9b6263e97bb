import java.time.Duration;
import java.util.List;
import skald.client.Skald;
import skald.client.generated.api.SagasApi.APIListSagasRequest;
import skald.client.generated.api.SagasApi.APIStartCheckoutRequest;
import skald.client.generated.model.CheckoutInput;
import skald.client.generated.model.CheckoutInputItemsInner;
import skald.client.generated.model.CheckoutInputPayment;
import skald.client.generated.model.Saga;
import skald.client.generated.model.SagaStatus;

/** Runs a checkout and shows how it ended. SKALD_URL says where Skald is, SKALD_API_KEY is optional. */
public final class Checkout {
  public static void main(String[] arguments) throws Exception {
    String url = System.getenv().getOrDefault("SKALD_URL", "http://127.0.0.1:8080");
    Skald skald = new Skald(url, Skald.Options.DEFAULT.withApiKey(System.getenv("SKALD_API_KEY")));
    CheckoutInput order =
        new CheckoutInput()
            .customerId("c-java")
            .items(List.of(new CheckoutInputItemsInner().productId("p-1").quantity(1)))
            .payment(new CheckoutInputPayment().method("card").token("tok_ok"));
    Saga begun =
        skald
            .sagas()
            .startCheckout(APIStartCheckoutRequest.newBuilder().checkoutInput(order).prefer("respond-async").build());
    Saga saga = skald.waitUntilEnded(begun.getId(), Duration.ofMinutes(1));
    System.out.println("checkout " + saga.getId() + ": " + saga.getStatus());

    APIListSagasRequest lastEnded =
        APIListSagasRequest.newBuilder()
            .status(List.of(SagaStatus.COMPLETED, SagaStatus.COMPENSATED))
            .definition("checkout")
            .limit(5)
            .build();
    boolean isListed =
        skald.sagas().listSagas(lastEnded).getItems().stream().anyMatch(other -> other.getId().equals(saga.getId()));
    System.out.println("it is among the last that ended: " + isListed);
    System.exit(isListed && saga.getStatus() == SagaStatus.COMPLETED ? 0 : 1);
  }
}
