package skald_test

import (
	"encoding/json"
	"net/http"
	"os"
	"testing"
	"time"

	skald "skald.internal/client"
)

func TestWebhooksThatAreBelieved(t *testing.T) {
	text, err := os.ReadFile("../webhook-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Cases []struct {
			Name    string
			Valid   bool
			Secret  string
			Now     int64
			Headers map[string]string
			Body    string
		}
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors.Cases) < 20 {
		t.Fatal("no vectors", err)
	}
	for _, of := range vectors.Cases {
		t.Run(of.Name, func(t *testing.T) {
			header := http.Header{}
			for name, value := range of.Headers {
				header.Set(name, value)
			}
			err := skald.VerifyWebhook(of.Secret, header, []byte(of.Body), time.Unix(of.Now, 0))
			if (err == nil) != of.Valid {
				t.Error(err)
			}
		})
	}
}
