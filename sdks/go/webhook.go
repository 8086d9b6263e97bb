package skald

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// How far a webhook's time and ours may lie apart: an old one may be somebody's recording.
const tolerance = 5 * time.Minute

// ErrInvalidWebhook is in every error of VerifyWebhook.
var ErrInvalidWebhook = errors.New("the webhook is not to be believed")

var isNumber = regexp.MustCompile(`^[0-9]{1,15}$`)

// VerifyWebhook errs unless the body was signed with the secret (whsec_..), as in Standard Webhooks, within five minutes
// of now. The body must be the bytes as received: parsing and writing it again changes them.
func VerifyWebhook(secret string, header http.Header, body []byte, now time.Time) error {
	id, timestamp, signatures := header.Get("webhook-id"), header.Get("webhook-timestamp"), header.Get("webhook-signature")
	if id == "" || timestamp == "" || signatures == "" {
		return fmt.Errorf("%w: a header is missing", ErrInvalidWebhook)
	}
	if !isNumber.MatchString(timestamp) {
		return fmt.Errorf("%w: the timestamp is not a number", ErrInvalidWebhook)
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidWebhook, err)
	}
	if apart := now.Sub(time.Unix(seconds, 0)); apart.Abs() > tolerance {
		return fmt.Errorf("%w: the timestamp is too far from now", ErrInvalidWebhook)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return fmt.Errorf("the secret is not base64: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	expected := mac.Sum(nil)
	for _, signature := range strings.Split(signatures, " ") {
		text, isKnown := strings.CutPrefix(signature, "v1,")
		digest, err := base64.StdEncoding.DecodeString(text)
		if isKnown && err == nil && hmac.Equal(digest, expected) {
			return nil
		}
	}
	return fmt.Errorf("%w: no signature is by this secret", ErrInvalidWebhook)
}
