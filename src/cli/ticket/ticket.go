// Creates a ticket: go run ticket.go. The secret and the names are those of presignd's variables.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"
)

func variable(name string) string {
	value := os.Getenv(name)
	if value == "" {
		log.Fatalf("%s is not set; a ticket needs the value that presignd has", name)
	}
	return value
}

func main() {
	secret, now := variable("JWT_SECRET"), time.Now().Unix()
	upload := map[string]any{"max_size": 5242880, "content_types": []string{"image/*"}}
	claims := map[string]any{"iss": variable("JWT_ISSUER"), "aud": variable("JWT_AUDIENCE"), "sub": "user-17", "iat": now, "exp": now + 3600, "upload": upload}
	body, _ := json.Marshal(claims) // maps of text and numbers always become JSON
	mac, part := hmac.New(sha256.New, []byte(secret)), base64.RawURLEncoding.EncodeToString
	// Sign:
	text := part([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + part(body)
	mac.Write([]byte(text))
	ticket := text + "." + part(mac.Sum(nil))

	fmt.Println(ticket)
}
