// A program that asks another one through a pool of connections, and one that takes its time to answer.
//
//	gopool -serve ADDR                        answers /300 after 300 ms, any other path after the time that its beginning says
//	gopool -proxy ADDR -to HOST:PORT -most N  passes requests on (httputil.ReverseProxy), at most N connections (MaxConnsPerHost)
//	gopool -page ADDR -to HOST:PORT -most N   makes a page of what it asks for by a path of its own, through the same pool
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

func main() {
	serve := flag.String("serve", "", "address of the server that takes its time")
	proxy := flag.String("proxy", "", "address of the proxy")
	page := flag.String("page", "", "address of the application")
	to := flag.String("to", "", "whom proxy and application ask")
	most := flag.Int("most", 2, "connections to it")
	flag.Parse()

	pool := &http.Transport{MaxConnsPerHost: *most, MaxIdleConnsPerHost: *most, DisableCompression: true}
	switch {
	case *serve != "":
		log.Fatal(http.ListenAndServe(*serve, http.HandlerFunc(slowly)))
	case *proxy != "":
		passes := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: *to})
		passes.Transport = pool
		log.Fatal(http.ListenAndServe(*proxy, passes))
	default:
		client := &http.Client{Transport: pool}
		log.Fatal(http.ListenAndServe(*page, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer, err := client.Get("http://" + *to + "/300/price" + strings.TrimPrefix(r.URL.Path, "/page"))
			if err != nil {
				http.Error(w, "no price", http.StatusInternalServerError)
				return
			}
			defer answer.Body.Close()
			price, _ := io.ReadAll(answer.Body)
			fmt.Fprintf(w, "the price is %s", price)
		})))
	}
}

func slowly(w http.ResponseWriter, r *http.Request) {
	var ms int
	fmt.Sscanf(r.URL.Path, "/%d", &ms)
	time.Sleep(time.Duration(ms) * time.Millisecond)
	fmt.Fprintf(w, "%d ms for %s\n", ms, r.URL.Path)
}
