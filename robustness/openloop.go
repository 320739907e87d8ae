package robustness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// An OpenLoop sends requests when they are due, whether or not those before them
// were answered, as many clients do that know nothing of each other. A server that
// is too slow gets no mercy from it, and delays are counted from when a request was
// due, so that those that had to wait for a connection are not left out.
type OpenLoop struct {
	Nodes []*Node
	// Connections is how many clients there are, each with one request under way
	// at a time.
	Connections int
	// Rate is requests a second, of all clients together; 0 is a closed loop, in
	// which a client sends its next request when it has the answer.
	Rate float64
	// Patience is how long after it was due a client gives a request up that it
	// could not send yet.
	Patience time.Duration
	// Began, if set, is called when all are connected, before the first request.
	Began func()
	// Next appends a request to b, without Body, which is sent behind it if there is one.
	Next func(b []byte, random *rand.Rand) []byte
	Body []byte
}

// A Tally is what came of requests: how many had which end, and how long it took.
type Tally struct {
	Elapsed time.Duration
	// Done is 2xx and 404, Shed is 429 and 503, Unknown 504.
	Done, Shed, Unknown int
	// Hinted is those of Shed that said when to come again.
	Hinted int
	// Other is any other status, Broken is connections that ended or could not be
	// made; one of each is described.
	Other, Broken     int
	OtherIs, BrokenBy string
	// Abandoned is what was never sent.
	Abandoned int
	// Late is from when a request that was done was due to its answer, ShedAfter
	// from when a request was sent to the answer that refused it.
	Late, ShedAfter []time.Duration
}

// Goodput is how much was done in a second.
func (t *Tally) Goodput() float64 { return float64(t.Done) / t.Elapsed.Seconds() }

func (t *Tally) String() string {
	s := fmt.Sprintf("%.0f/s done (p50 %v, p99 %v from when due), %.0f/s shed (p50 %v, p99 %v from when sent), %d unknown, %d abandoned",
		t.Goodput(), quantile(t.Late, .5), quantile(t.Late, .99),
		float64(t.Shed)/t.Elapsed.Seconds(), quantile(t.ShedAfter, .5), quantile(t.ShedAfter, .99), t.Unknown, t.Abandoned)
	if t.Other > 0 {
		s += fmt.Sprintf(", %d other (%s)", t.Other, t.OtherIs)
	}
	if t.Broken > 0 {
		s += fmt.Sprintf(", %d broken (%s)", t.Broken, t.BrokenBy)
	}
	return s
}

// quantile sorts all and picks one.
func quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[int(q*float64(len(all)-1))].Round(100 * time.Microsecond)
}

// Run sends requests for a while and waits for the answers to the last.
func (l *OpenLoop) Run(random *rand.Rand, duration time.Duration) *Tally {
	tallies, clients := make([]Tally, l.Connections), make([]*openClient, l.Connections)
	// Connecting is no part of it, nor is what a server does for a connection once.
	var wg sync.WaitGroup
	for i := range clients {
		random := rand.New(rand.NewPCG(random.Uint64(), uint64(i)))
		c := &openClient{loop: l, node: l.Nodes[i%len(l.Nodes)], random: random, tally: &Tally{}}
		clients[i] = c
		wg.Go(func() {
			c.send([]byte("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"), time.Now())
			c.tally, c.body = &tallies[i], l.Body
		})
	}
	wg.Wait()
	if l.Began != nil {
		l.Began()
	}
	began := time.Now()
	for _, c := range clients {
		wg.Go(func() { c.run(began, duration) })
	}
	wg.Wait()
	total := &Tally{Elapsed: time.Since(began)}
	for i := range tallies {
		t := &tallies[i]
		total.Done += t.Done
		total.Shed += t.Shed
		total.Hinted += t.Hinted
		total.Unknown += t.Unknown
		total.Other += t.Other
		total.Broken += t.Broken
		total.Abandoned += t.Abandoned
		total.Late = append(total.Late, t.Late...)
		total.ShedAfter = append(total.ShedAfter, t.ShedAfter...)
		if t.OtherIs != "" {
			total.OtherIs = t.OtherIs
		}
		if t.BrokenBy != "" {
			total.BrokenBy = t.BrokenBy
		}
	}
	return total
}

// openClient is one connection of an OpenLoop.
type openClient struct {
	loop   *OpenLoop
	node   *Node
	random *rand.Rand
	tally  *Tally
	body   []byte // of each request, but for the one that connects
	conn   net.Conn
	r      *bufio.Reader
}

func (c *openClient) run(began time.Time, duration time.Duration) {
	defer c.close()
	end := began.Add(duration)
	due := began
	var gap time.Duration
	if c.loop.Rate > 0 {
		gap = time.Duration(float64(c.loop.Connections) / c.loop.Rate * float64(time.Second))
		due = due.Add(rand.N(gap))
	}
	var b []byte
	for ; due.Before(end); due = due.Add(gap) {
		now := time.Now()
		switch {
		case gap == 0:
			due = now
		case now.Sub(due) > c.loop.Patience:
			c.tally.Abandoned++
			continue
		default:
			time.Sleep(due.Sub(now))
		}
		if !due.Before(end) {
			return
		}
		b = c.loop.Next(b[:0], c.random)
		c.send(b, due)
	}
}

func (c *openClient) send(request []byte, due time.Time) {
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.node.Address, requestTimeout)
		if err != nil {
			c.broken(err)
			time.Sleep(10 * time.Millisecond) // nobody dials without a pause
			return
		}
		c.conn, c.r = conn, bufio.NewReaderSize(conn, 4<<10)
	}
	sent := time.Now()
	_ = c.conn.SetDeadline(sent.Add(2 * requestTimeout))
	status, hinted, closes, err := c.exchange(request)
	now := time.Now()
	switch {
	case err != nil:
		c.broken(err)
		return
	case status < 300, status == 404:
		c.tally.Done++
		c.tally.Late = append(c.tally.Late, now.Sub(due))
	case status == 429, status == 503:
		c.tally.Shed++
		if hinted {
			c.tally.Hinted++
		}
		c.tally.ShedAfter = append(c.tally.ShedAfter, now.Sub(sent))
	case status == 504:
		c.tally.Unknown++
	default:
		c.tally.Other++
		c.tally.OtherIs = strconv.Itoa(status)
	}
	if closes {
		c.close()
	}
}

// exchange sends a request with its body, and reads its answer.
func (c *openClient) exchange(request []byte) (status int, hinted, closes bool, err error) {
	parts := net.Buffers{request}
	asks := bytes.Contains(request, []byte(asksFirst))
	if !asks && len(c.body) > 0 {
		parts = append(parts, c.body)
	}
	if _, err := parts.WriteTo(c.conn); err != nil {
		return 0, false, false, err
	}
	status, hinted, closes, err = readAnswer(c.r)
	if err != nil || !asks || status != http.StatusContinue {
		return status, hinted, closes, err
	}
	if _, err := c.conn.Write(c.body); err != nil {
		return 0, false, false, err
	}
	return readAnswer(c.r)
}

func (c *openClient) broken(err error) {
	c.tally.Broken++
	c.tally.BrokenBy = err.Error()
	c.close()
}

func (c *openClient) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// readAnswer reads an answer of HTTP/1.1 as far as a generator of load needs it,
// which must cost less than to give one: net/http's client costs several times as
// much as the server.
func readAnswer(r *bufio.Reader) (status int, hinted, closes bool, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, false, false, err
	}
	if len(line) < 12 {
		return 0, false, false, fmt.Errorf("a status line is %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, false, false, err
	}
	length, chunked := 0, false
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return status, hinted, closes, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch string(name) {
		case "Content-Length":
			if length, err = strconv.Atoi(string(value)); err != nil {
				return status, hinted, closes, err
			}
		case "Transfer-Encoding":
			chunked = true
		case "Connection":
			closes = string(value) == "close"
		case "Retry-After":
			hinted = true
		}
	}
	if !chunked {
		_, err = r.Discard(length)
		return status, hinted, closes, err
	}
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return status, hinted, closes, err
		}
		size, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 32)
		if err != nil {
			return status, hinted, closes, err
		}
		if _, err := r.Discard(int(size) + 2); err != nil || size == 0 {
			return status, hinted, closes, err
		}
	}
}

// Requests of a load, as they go over the wire.

// overloadKeys is how many keys there are.
const overloadKeys = 5000

func overloadKey(random *rand.Rand) int { return random.IntN(overloadKeys) }

func putOf(size int) func([]byte, *rand.Rand) []byte {
	value := bytes.Repeat([]byte("v"), size)
	return func(b []byte, random *rand.Rand) []byte {
		b = fmt.Appendf(b, "PUT /v1/kv/load/%02d/%04d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n",
			overloadKey(random)%50, overloadKey(random), size)
		return append(b, value...)
	}
}

// asksFirst is the header of a client that sends no body before it is wanted.
const asksFirst = "Expect: 100-continue\r\n"

// putLarge is a put of the body of the loop, with more headers.
func putLarge(body []byte, headers string) func([]byte, *rand.Rand) []byte {
	return func(b []byte, random *rand.Rand) []byte {
		return fmt.Appendf(b, "PUT /v1/kv/load/%02d/%04d HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n",
			overloadKey(random)%50, overloadKey(random), headers, len(body))
	}
}

func getOne(b []byte, random *rand.Rand) []byte {
	return fmt.Appendf(b, "GET /v1/kv/load/%02d/%04d HTTP/1.1\r\nHost: localhost\r\n\r\n", overloadKey(random)%50, overloadKey(random))
}

func listSome(b []byte, random *rand.Rand) []byte {
	return fmt.Appendf(b, "GET /v1/kv?prefix=load/%02d/&limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n", random.IntN(50))
}

// mixed is half puts, four of ten gets, and lists.
func mixed(b []byte, random *rand.Rand) []byte {
	switch n := random.IntN(10); {
	case n < 5:
		return putOf(256)(b, random)
	case n < 9:
		return getOne(b, random)
	}
	return listSome(b, random)
}

// openStreams opens requests whose answers are streams, until there are so many or
// the server takes no more, and leaves them open.
func openStreams(n *Node, request string, most int) (open []net.Conn, refused *Tally, err error) {
	refused = &Tally{}
	began := time.Now()
	defer func() { refused.Elapsed = time.Since(began) }()
	for range most {
		conn, err := net.DialTimeout("tcp", n.Address, requestTimeout)
		if err != nil {
			return open, refused, err
		}
		sent := time.Now()
		_ = conn.SetDeadline(sent.Add(requestTimeout))
		if _, err := io.WriteString(conn, request); err != nil {
			conn.Close()
			return open, refused, err
		}
		head := make([]byte, 512)
		got, err := conn.Read(head)
		if err != nil {
			conn.Close()
			return open, refused, err
		}
		answer := string(head[:got])
		switch {
		case len(answer) > 12 && answer[9:12] == "200":
			open = append(open, conn)
			refused.Done++
			continue
		case len(answer) > 12 && (answer[9:12] == "429" || answer[9:12] == "503"):
			refused.Shed++
			if bytes.Contains(head[:got], []byte("Retry-After: ")) {
				refused.Hinted++
			}
			refused.ShedAfter = append(refused.ShedAfter, time.Since(sent))
		default:
			conn.Close()
			return open, refused, errors.New("a stream is answered with " + answer)
		}
		conn.Close()
		if refused.Shed == 100 {
			return open, refused, nil
		}
	}
	return open, refused, nil
}
