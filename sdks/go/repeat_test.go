package skald_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	skald "skald.internal/client"
	"skald.internal/client/api"
)

const (
	saga = `{"id": "1", "definition": "checkout", "version": 1, "mode": "orchestrated", "status": "completed",
		"state": "DONE", "input": {}, "steps": [], "correlation_id": "c", "created_at": "2026-01-01T00:00:00Z",
		"updated_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:00Z", "revision": 1, "something_newer": 1}`
	problem = `{"type": "t", "title": "t", "status": 503, "detail": "later", "code": "overloaded"}`
)

// An answer with this status and Retry-After; with status 0 the server hangs up.
type answer struct {
	status int
	waitS  int
}

// serve answers in turn, and gives the headers of the requests.
func serve(t *testing.T, answers ...answer) (string, *[]http.Header) {
	asked := &[]http.Header{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err != nil || len(body) == 0 {
			t.Error("a body is missing", err)
		}
		of := answers[len(*asked)]
		*asked = append(*asked, r.Header)
		if of.status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Retry-After", strconv.Itoa(of.waitS))
		kind, body := "application/json", saga
		if of.status >= 300 {
			kind, body = "application/problem+json", problem
		}
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(of.status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

func start(url string, options skald.Options, key string) (*api.Saga, error) {
	options.APIKey = "k"
	client := skald.New(url, options)
	return client.Start(context.Background(), "checkout", map[string]any{}, skald.StartOptions{IdempotencyKey: key})
}

func TestAStartIsRepeatedUnderOneKeyThatWasMadeForIt(t *testing.T) {
	url, asked := serve(t, answer{503, 0}, answer{429, 0}, answer{}, answer{201, 0})
	saga, err := start(url, skald.Options{}, "")
	if err != nil || saga.Status != api.SAGASTATUS_COMPLETED {
		t.Fatal(saga, err)
	}
	key := (*asked)[0].Get("Idempotency-Key")
	for _, header := range *asked {
		if key == "" || header.Get("Idempotency-Key") != key || header.Get("Authorization") != "Bearer k" {
			t.Error(header)
		}
	}
	if len(*asked) != 4 {
		t.Error(*asked)
	}
}

func TestAKeyThatIsThereStays(t *testing.T) {
	url, asked := serve(t, answer{201, 0})
	if _, err := start(url, skald.Options{}, "mine"); err != nil || (*asked)[0].Get("Idempotency-Key") != "mine" {
		t.Error(err, *asked)
	}
}

func TestWhatMayHaveBeenDoneIsNotRepeatedWithoutAKey(t *testing.T) {
	url, asked := serve(t, answer{429, 0}, answer{503, 0})
	client := skald.New(url, skald.Options{})
	request := api.PollRequest{Consumer: "c"}
	_, _, err := client.GroupsAPI.PollGroup(context.Background(), "g").PollRequest(request).Execute()
	if said := skald.Problem(err); said == nil || said.Code != "overloaded" {
		t.Error(err)
	}
	if len(*asked) != 2 || (*asked)[0].Get("Idempotency-Key") != "" {
		t.Error(*asked)
	}
}

func TestRepeatingEnds(t *testing.T) {
	url, asked := serve(t, answer{503, 0}, answer{503, 0})
	if _, err := start(url, skald.Options{AttemptsMax: 2}, ""); skald.Problem(err) == nil || len(*asked) != 2 {
		t.Error(err, *asked)
	}
}

func TestAWaitThatIsAskedForIsKeptAndOneThatIsTooLongIsNotBegun(t *testing.T) {
	url, _ := serve(t, answer{503, 1}, answer{201, 0})
	begun := time.Now()
	if _, err := start(url, skald.Options{}, ""); err != nil || time.Since(begun) < time.Second {
		t.Error(err, time.Since(begun))
	}
	url, _ = serve(t, answer{503, 61})
	if _, err := start(url, skald.Options{}, ""); err == nil {
		t.Error("it came back too early")
	}
}
