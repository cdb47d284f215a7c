// Loads one server over TLS with connections that are kept, and says in one line of JSON how many
// requests it answered, how fast, and how many answers were not the one expected. The requests are
// written whole and the responses read without net/http, so that the client is never the slow part.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

type result struct {
	took     []time.Duration
	failures int
	last     string
}

func requests(path, bodies, host string) ([][]byte, error) {
	text, err := os.ReadFile(bodies)
	if err != nil {
		return nil, err
	}
	var found [][]byte
	for _, body := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: kube-apiserver-admission\r\n"+
			"Content-Length: %d\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\n"+
			"Accept-Encoding: gzip\r\n\r\n", path, host, len(body))
		found = append(found, append([]byte(head), body...))
	}
	return found, nil
}

// exchange sends one request and returns the body of its response.
func exchange(to io.Writer, from *bufio.Reader, request, room []byte) ([]byte, error) {
	if _, err := to.Write(request); err != nil {
		return nil, err
	}
	status, err := from.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(status, []byte(" 200 ")) {
		return nil, fmt.Errorf("answered %q", status)
	}
	length := -1
	for {
		line, err := from.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := strings.Cut(string(line), ":")
		if strings.EqualFold(name, "content-length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 || length > len(room) {
		return nil, fmt.Errorf("a body of %d bytes", length)
	}
	_, err = io.ReadFull(from, room[:length])
	return room[:length], err
}

func load(address string, config *tls.Config, all [][]byte, first int, want []byte, end time.Time) (r result) {
	connection, err := tls.Dial("tcp", address, config)
	if err != nil {
		return result{failures: 1, last: err.Error()}
	}
	defer connection.Close()
	from, room := bufio.NewReaderSize(connection, 64<<10), make([]byte, 1<<20)
	for number := first; ; number++ {
		began := time.Now()
		if began.After(end) {
			return r
		}
		body, err := exchange(connection, from, all[number%len(all)], room)
		if err != nil {
			r.failures, r.last = r.failures+1, err.Error()
			return r
		}
		if !bytes.Contains(body, want) {
			r.failures, r.last = r.failures+1, string(body)
			continue
		}
		r.took = append(r.took, time.Since(began))
	}
}

func main() {
	address := flag.String("address", "", "host:port")
	authority := flag.String("ca", "", "who signed the server's certificate, in PEM")
	path := flag.String("path", "", "path of the requests")
	bodies := flag.String("bodies", "", "a file with one body a line; they take turns")
	want := flag.String("want", "", "text that each answer must have")
	connections := flag.Int("connections", 1, "at once")
	seconds := flag.Float64("seconds", 1, "for how long")
	flag.Parse()
	pem, err := os.ReadFile(*authority)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	all, err := requests(*path, *bodies, *address)
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}
	began := time.Now()
	end := began.Add(time.Duration(*seconds * float64(time.Second)))
	results := make([]result, *connections)
	var done sync.WaitGroup
	for number := range results {
		done.Add(1)
		go func() {
			defer done.Done()
			results[number] = load(*address, config, all, number*len(all) / *connections, []byte(*want), end)
		}()
	}
	done.Wait()
	lasted := time.Since(began).Seconds()
	var took []time.Duration
	failures, last := 0, ""
	for _, r := range results {
		took = append(took, r.took...)
		failures += r.failures
		if r.last != "" {
			last = r.last
		}
	}
	slices.Sort(took)
	at := func(part float64) float64 {
		if len(took) == 0 {
			return 0
		}
		return took[int(part*float64(len(took)-1))].Seconds()
	}
	text, err := json.Marshal(map[string]any{
		"answered": len(took), "seconds": lasted, "failures": failures, "lastFailure": last,
		"p50": at(0.5), "p99": at(0.99),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
}
