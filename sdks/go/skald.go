// Package skald is a client of Skald: every call, typed (package api), and what calls need besides.
package skald

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"skald.internal/client/api"
)

const (
	// The longest that one request may wait.
	waitMax = 60 * time.Second
	// Between looks at a saga whose waits end at once, as a parked one's do.
	pause = 500 * time.Millisecond
)

// Options says how to talk to a server. The zero value is good.
type Options struct {
	// APIKey is sent as bearer token with every request, unless empty.
	APIKey string
	// AttemptsMax is how many requests are made at most for one call: 5 if 0; 1 repeats nothing.
	AttemptsMax int
	// WaitMax is the longest wait before a repetition: a minute if 0. A longer Retry-After ends the repeating.
	WaitMax time.Duration
	// Transport makes the requests: http.DefaultTransport if nil.
	Transport http.RoundTripper
}

// Client has every call of the API, by topic. Starts get an idempotency key, and refusals for now are repeated.
type Client struct {
	*api.APIClient
}

// StartOptions is what a start may say besides definition and input. The zero value is good.
type StartOptions struct {
	// IdempotencyKey names the start: the same key gives the same saga. One is made if it is empty.
	IdempotencyKey string
	// Version of the definition: the highest if 0.
	Version int32
	// Mode is orchestrated if empty.
	Mode api.SagaMode
	// Wait is how long the answer may wait for the end: the server's default if nil.
	Wait *time.Duration
}

// StillRunning says that the saga had not ended in time; Saga is how it was last seen.
type StillRunning struct {
	Saga *api.Saga
}

func (e *StillRunning) Error() string {
	return fmt.Sprintf("saga %s is still %s", e.Saga.Id, e.Saga.Status)
}

// New gives a client of the server at baseURL.
func New(baseURL string, options Options) *Client {
	configuration := api.NewConfiguration()
	configuration.Servers = api.ServerConfigurations{{URL: strings.TrimSuffix(baseURL, "/")}}
	if options.APIKey != "" {
		configuration.AddDefaultHeader("Authorization", "Bearer "+options.APIKey)
	}
	configuration.HTTPClient = &http.Client{Transport: newRepeating(options)}
	return &Client{api.NewAPIClient(configuration)}
}

// Start starts a saga; the answer waits for its end for a while, so look at Status. The error of a refusal is an
// *api.GenericOpenAPIError; Problem gives what the server says.
func (c *Client) Start(ctx context.Context, definition string, input any, options StartOptions) (*api.Saga, error) {
	request := api.StartSagaRequest{Definition: definition, Input: input}
	if options.Version != 0 {
		request.Version = &options.Version
	}
	if options.Mode != "" {
		request.Mode = &options.Mode
	}
	call := c.SagasAPI.StartAnySaga(ctx).StartSagaRequest(request)
	if options.IdempotencyKey != "" {
		call = call.IdempotencyKey(options.IdempotencyKey)
	}
	if options.Wait != nil {
		call = call.Prefer(prefer(*options.Wait))
	}
	saga, _, err := call.Execute()
	return saga, err
}

// WaitUntilEnded waits until the saga has ended: completed, compensated or abandoned. The error is a *StillRunning when
// the timeout comes first.
func (c *Client) WaitUntilEnded(ctx context.Context, id string, timeout time.Duration) (*api.Saga, error) {
	until := time.Now().Add(timeout)
	for {
		left := max(0, time.Until(until)+time.Second)
		saga, _, err := c.SagasAPI.GetSaga(ctx, id).Prefer(prefer(min(left, waitMax))).Execute()
		if err != nil {
			return nil, err
		}
		if saga.EndedAt != nil {
			return saga, nil
		}
		if !time.Now().Before(until) {
			return nil, &StillRunning{saga}
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// Problem is what the server said when it refused a call, or nil if the error is another one.
func Problem(err error) *api.Problem {
	var refused *api.GenericOpenAPIError
	var problem api.Problem
	if !errors.As(err, &refused) || json.Unmarshal(refused.Body(), &problem) != nil || problem.Code == "" {
		return nil
	}
	return &problem
}

func prefer(wait time.Duration) string {
	return fmt.Sprintf("wait=%d", int(wait.Seconds()))
}

func sleep(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
