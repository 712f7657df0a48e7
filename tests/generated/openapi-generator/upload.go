// An upload with the Go package that openapi-generator writes. The module that it needs is that of Debian.
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"strings"

	"openapi"
)

func check(isTrue bool, what ...any) {
	if !isTrue {
		log.Fatal(what...)
	}
}

func main() {
	configuration := openapi.NewConfiguration()
	configuration.Servers = openapi.ServerConfigurations{{URL: os.Args[1]}}
	uploads := openapi.NewAPIClient(configuration).UploadAPI
	ctx := context.Background()

	file := openapi.NewFileRequest("노트.txt", "text/plain")
	grant, _, err := uploads.PresignUpload(ctx).FileRequest(*file).Execute()
	check(err == nil, err)

	put, err := http.NewRequest(grant.Method, grant.Url, strings.NewReader("hello"))
	check(err == nil, err)
	for name, value := range grant.Headers {
		put.Header.Set(name, value)
	}
	sent, err := http.DefaultClient.Do(put)
	check(err == nil && sent.StatusCode == 200, err, sent)

	wanted := openapi.NewVerifyOne(grant.Key)
	wanted.SetSize(5)
	request := openapi.VerifyOneAsVerifyRequest(wanted)
	found, _, err := uploads.VerifyUpload(ctx).VerifyRequest(request).Execute()
	check(err == nil, err)
	check(found.VerifiedUpload != nil && found.VerifiedUpload.Size == 5, found)

	// A problem has a type, too.
	_, _, err = uploads.PresignUpload(ctx).FileRequest(*openapi.NewFileRequest("a/b", "text/plain")).Execute()
	var refusal *openapi.GenericOpenAPIError
	check(errors.As(err, &refusal), err)
	problem, isProblem := refusal.Model().(openapi.Problem)
	check(isProblem && problem.Errors[0].Pointer == "/filename", err)
}
