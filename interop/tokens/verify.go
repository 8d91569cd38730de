// go run verify.go JWKS_URL TOKEN
// Verifies a guest token and prints the guest ID, or the reason for the refusal. Needs go-jose.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"gopkg.in/square/go-jose.v2" // github.com/go-jose/go-jose/v4 has the same calls
	"gopkg.in/square/go-jose.v2/jwt"
)

const leeway = time.Minute // allowed clock difference: one minute

func guest(url, text string) (string, error) {
	client := http.Client{Timeout: 3 * time.Second}
	// Cache the key set for at most GUESTLANE_SIGNING_KEY_PUBLISH_LEAD; fetch it again for an
	// unknown kid.
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var keys jose.JSONWebKeySet
	if err := json.NewDecoder(answer.Body).Decode(&keys); err != nil {
		return "", err
	}
	token, err := jwt.ParseSigned(text)
	if err != nil {
		return "", err
	}
	if len(token.Headers) != 1 || token.Headers[0].Algorithm != "RS256" { // never the algorithm that the token names
		return "", fmt.Errorf("the algorithm is not RS256")
	}
	known := keys.Key(token.Headers[0].KeyID)
	if len(known) != 1 {
		return "", fmt.Errorf("the key is not known")
	}
	var times jwt.Claims
	var claims struct {
		GuestID string `json:"guestId"`
	}
	if err := token.Claims(known[0].Key, &times, &claims); err != nil {
		return "", err
	}
	if times.IssuedAt == nil || times.Expiry == nil || claims.GuestID == "" {
		return "", fmt.Errorf("guestId, iat or exp is missing")
	}
	return claims.GuestID, times.ValidateWithLeeway(jwt.Expected{Time: time.Now()}, leeway)
}

func main() {
	guest, err := guest(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
	fmt.Println(guest)
}
