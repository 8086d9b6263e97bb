// Runs a checkout and shows how it ended. SKALD_URL says where Skald is, SKALD_API_KEY is optional.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"slices"
	"time"

	skald "skald.internal/client"
	"skald.internal/client/api"
)

func main() {
	ctx := context.Background()
	url := cmp.Or(os.Getenv("SKALD_URL"), "http://127.0.0.1:8080")
	client := skald.New(url, skald.Options{APIKey: os.Getenv("SKALD_API_KEY")})
	order := api.CheckoutInput{
		CustomerId: "c-go",
		Items:      []api.CheckoutInputItemsInner{{ProductId: "p-1", Quantity: 1}},
		Payment:    api.CheckoutInputPayment{Method: "card", Token: "tok_ok"},
	}
	begun, _, err := client.SagasAPI.StartCheckout(ctx).CheckoutInput(order).Prefer("respond-async").Execute()
	if err != nil {
		log.Fatal(err)
	}
	saga, err := client.WaitUntilEnded(ctx, begun.Id, time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("checkout %s: %s\n", saga.Id, saga.Status)

	statuses := []api.SagaStatus{api.SAGASTATUS_COMPLETED, api.SAGASTATUS_COMPENSATED}
	ended, _, err := client.SagasAPI.ListSagas(ctx).Status(statuses).Definition("checkout").Limit(5).Execute()
	if err != nil {
		log.Fatal(err)
	}
	isListed := slices.ContainsFunc(ended.Items, func(other api.SagaSummary) bool { return other.Id == saga.Id })
	fmt.Printf("it is among the last that ended: %t\n", isListed)
	if !isListed || saga.Status != api.SAGASTATUS_COMPLETED {
		os.Exit(1)
	}
}
