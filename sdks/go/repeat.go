package skald

import (
	crypto "crypto/rand"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

const (
	keyHeader   = "Idempotency-Key"
	attemptsMax = 5
	waitFirst   = 200 * time.Millisecond
)

// Starts, and operators' commands to sagas: the calls that take a key.
var takesKey = regexp.MustCompile(`/sagas(/[^/]+)?$|/admin/sagas/.+$`)

// repeating repeats what was refused for now, and gives starts and operators' commands a key that makes repeating them
// harmless.
//
//	answer     repeated
//	429        always: nothing was done
//	503        unless it is a POST without Idempotency-Key: it may have been done
//	no answer  like 503
type repeating struct {
	transport   http.RoundTripper
	attemptsMax int
	waitMax     time.Duration
}

func newRepeating(options Options) *repeating {
	r := &repeating{options.Transport, options.AttemptsMax, options.WaitMax}
	if r.transport == nil {
		r.transport = http.DefaultTransport
	}
	if r.attemptsMax == 0 {
		r.attemptsMax = attemptsMax
	}
	if r.waitMax == 0 {
		r.waitMax = waitMax
	}
	return r
}

func (r *repeating) RoundTrip(request *http.Request) (*http.Response, error) {
	// A transport must leave the request as it is.
	request = request.Clone(request.Context())
	isPost := request.Method == http.MethodPost
	if isPost && request.Header.Get(keyHeader) == "" && takesKey.MatchString(request.URL.Path) {
		request.Header.Set(keyHeader, newKey())
	}
	harmless := !isPost || request.Header.Get(keyHeader) != ""
	for attempt := 1; ; attempt++ {
		answer, err := r.transport.RoundTrip(request)
		refused := err != nil && harmless || err == nil && mayRepeat(answer.StatusCode, harmless)
		wait := waitBefore(answer, attempt)
		isOnce := request.Body != nil && request.GetBody == nil
		if !refused || isOnce || attempt >= r.attemptsMax || wait > r.waitMax || request.Context().Err() != nil {
			return answer, err
		}
		if answer != nil {
			// Read to its end, so that the connection can be used again.
			_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16))
			_ = answer.Body.Close()
		}
		if err := sleep(request.Context(), wait); err != nil {
			return nil, err
		}
		if request.GetBody != nil {
			if request.Body, err = request.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

func mayRepeat(status int, harmless bool) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable && harmless
}

// waitBefore is what the answer asks for, in seconds or as a date; else twice as long each time, between the half of it
// and all, so that clients do not come back together.
func waitBefore(answer *http.Response, attempt int) time.Duration {
	if answer != nil {
		text := answer.Header.Get("Retry-After")
		if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
			return time.Duration(seconds) * time.Second
		}
		if date, err := http.ParseTime(text); err == nil {
			return max(0, time.Until(date))
		}
	}
	doubled := waitFirst << min(attempt-1, 20)
	return doubled/2 + rand.N(doubled/2)
}

func newKey() string {
	var bytes [16]byte
	// Never fails: the program ends if the system has no randomness.
	_, _ = crypto.Read(bytes[:])
	return fmt.Sprintf("%x", bytes)
}
