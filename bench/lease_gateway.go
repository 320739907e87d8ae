package main

import (
	"bytes"
	"strconv"
	"time"
)

// etcdLeaseID is the id of a lease of that number; 0 lets etcd choose one.
func etcdLeaseID(lease int) int64 {
	if lease == serverChooses {
		return 0
	}
	return int64(lease) + 1
}

// answered is what a gateway's answer that names a lease with a time to live has
// in it. Of a lease that doesn't exist there is no time to live.
var answered = []byte(`"TTL":"`)

// ask posts a body and checks that the answer has that in it.
func (s *gatewaySession) ask(what, path string, body []byte) error {
	b := append(append(s.scratch[:0], "POST "...), path...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), s.host...)
	b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n\r\n"...)
	s.scratch = append(b, body...)
	answer, err := s.conn.Do(s.scratch)
	if err != nil {
		return err
	}
	if answer.Status != 200 || !bytes.Contains(answer.Body, answered) {
		return unexpected(what, answer.Status, answer.Body)
	}
	return nil
}

func (s *gatewaySession) grant(lease int, ttl time.Duration) error {
	body := strconv.AppendInt(append(make([]byte, 0, 64), `{"TTL":`...), int64(ttl/time.Second), 10)
	body = strconv.AppendInt(append(body, `,"ID":`...), etcdLeaseID(lease), 10)
	return s.ask("grant", "/v3/lease/grant", append(body, '}'))
}

func (s *gatewaySession) renew(lease int) error {
	body := strconv.AppendInt(append(make([]byte, 0, 32), `{"ID":`...), etcdLeaseID(lease), 10)
	return s.ask("renewal", "/v3/lease/keepalive", append(body, '}'))
}
