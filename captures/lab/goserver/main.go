// A TLS and a plain HTTP server in Go, with nothing special about them: what GitLab Pages is behind its listeners.
// goserver -cert F -key F -https :1443 -http :1080
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	cert := flag.String("cert", "", "certificate chain")
	key := flag.String("key", "", "private key")
	secure := flag.String("https", "", "address for HTTPS")
	plain := flag.String("http", "", "address for HTTP")
	alpn := flag.String("alpn", "", "offer only this protocol")
	mutual := flag.String("mutual", "", "want client certificates of this authority")
	broken := flag.Bool("broken", false, "fail to load the certificate of every name")
	flag.Parse()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello from go") })
	http.HandleFunc("/-/readiness", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "success") })
	if *plain != "" {
		go func() { log.Fatal(http.ListenAndServe(*plain, nil)) }()
	}
	if *secure != "" {
		config := &tls.Config{}
		server := &http.Server{Addr: *secure, TLSConfig: config}
		if *broken {
			config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return nil, errors.New("certificate store unreachable")
			}
			listener, err := tls.Listen("tcp", *secure, config)
			if err != nil {
				log.Fatal(err)
			}
			log.Fatal(server.Serve(listener))
		}
		if *mutual != "" {
			pem, err := os.ReadFile(*mutual)
			if err != nil {
				log.Fatal(err)
			}
			config.ClientCAs = x509.NewCertPool()
			config.ClientCAs.AppendCertsFromPEM(pem)
			config.ClientAuth = tls.RequireAndVerifyClientCert
		}
		if *alpn != "" {
			config.NextProtos = []string{*alpn}
			server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
		}
		log.Fatal(server.ListenAndServeTLS(*cert, *key))
	}
	select {}
}
