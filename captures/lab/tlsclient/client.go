// One HTTPS request with Go's crypto/tls, with nothing special about it.
// client ADDRESS:PORT NAME CA.pem 12|13
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	address, name, version := os.Args[1], os.Args[2], os.Args[4]
	authority, err := os.ReadFile(os.Args[3])
	if err != nil {
		fmt.Println("go:", err)
		return
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13}
	config.RootCAs.AppendCertsFromPEM(authority)
	if version == "12" {
		config.MaxVersion = tls.VersionTLS12
	}
	dialer := &net.Dialer{Timeout: 3 * time.Second}
	client := &http.Client{Timeout: 8 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   config,
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
	}}
	response, err := client.Get("https://" + name + "/")
	if err != nil {
		fmt.Println("go:", err)
		return
	}
	defer response.Body.Close()
	octets, _ := io.ReadAll(response.Body)
	fmt.Println("go:", response.Status, len(octets))
}
