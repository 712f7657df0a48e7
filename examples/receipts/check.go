// Checks a receipt: go run check.go KEYS RECEIPT. KEYS is a copy of /.well-known/jwks.json, in a file.
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

type Key struct{ Kid, X string }

// The claims, as JSON, of a receipt that one of the keys signed.
func claimsOf(receipt string, keys []Key) ([]byte, error) {
	parts := strings.Split(receipt, ".")
	if len(parts) != 3 {
		return nil, errors.New("not a receipt")
	}
	var decoded [3][]byte
	for i, part := range parts {
		bytes, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			return nil, err
		}
		decoded[i] = bytes
	}
	var header struct{ Alg, Typ, Kid string }
	if err := json.Unmarshal(decoded[0], &header); err != nil {
		return nil, err
	}
	if header.Alg != "EdDSA" || header.Typ != "upload-receipt+jwt" {
		return nil, errors.New("not a receipt")
	}
	for _, key := range keys {
		public, err := base64.RawURLEncoding.DecodeString(key.X)
		if key.Kid != header.Kid || err != nil || len(public) != ed25519.PublicKeySize {
			continue
		}
		if ed25519.Verify(public, []byte(parts[0]+"."+parts[1]), decoded[2]) {
			return decoded[1], nil
		}
	}
	return nil, errors.New("none of these keys signed it")
}

func main() {
	var set struct{ Keys []Key }
	file, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = json.Unmarshal(file, &set)
	}
	var claims []byte
	if err == nil {
		claims, err = claimsOf(os.Args[2], set.Keys)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(string(claims))
}
