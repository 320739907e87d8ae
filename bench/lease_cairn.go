package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// leaseIDSize is the length of a ULID.
const leaseIDSize = 26

// appendLeaseID appends the ULID of a lease of that number. Like those that a
// server makes, they come in the order in which they are granted.
func appendLeaseID(b []byte, lease int) []byte {
	const prefix = "01JBENCH"
	b = append(b, prefix...)
	at := len(b)
	b = append(b, "000000000000000000"[:leaseIDSize-len(prefix)]...)
	for i := len(b) - 1; lease > 0; i-- {
		if i < at {
			panic("the number of a lease has too many digits")
		}
		b[i] = byte('0' + lease%10)
		lease /= 10
	}
	return b
}

// post begins a request with JSON of that length.
func (s *cairnSession) post(path string, length int) {
	s.lines = append(append(s.lines[:0], "POST "...), path...)
	s.lines = append(append(s.lines, " HTTP/1.1\r\nHost: "...), s.host...)
	s.lines = strconv.AppendInt(append(s.lines, "\r\nContent-Type: application/json\r\nContent-Length: "...), int64(length), 10)
	s.lines = append(s.lines, "\r\n\r\n"...)
}

func (s *cairnSession) grant(lease int, ttl time.Duration) error {
	body := make([]byte, 0, 128)
	body = append(body, '{')
	if lease != serverChooses {
		body = append(appendLeaseID(append(body, `"id":"`...), lease), `",`...)
	}
	body = strconv.AppendFloat(append(body, `"ttl_seconds":`...), ttl.Seconds(), 'f', -1, 64)
	body = append(body, '}')
	s.post("/v1/leases", len(body))
	s.lines = append(s.lines, body...)
	answer, err := s.conn.Do(s.lines)
	if err != nil {
		return err
	}
	if answer.Status != 201 || !bytes.HasPrefix(answer.Body, []byte(`{"id":"`)) {
		return unexpected("grant", answer.Status, answer.Body)
	}
	return nil
}

func (s *cairnSession) renew(lease int) error {
	s.lines = appendLeaseID(append(s.lines[:0], "POST /v1/leases/"...), lease)
	s.lines = append(append(s.lines, "/keepalive HTTP/1.1\r\nHost: "...), s.host...)
	s.lines = append(s.lines, "\r\nContent-Length: 0\r\n\r\n"...)
	answer, err := s.conn.Do(s.lines)
	if err != nil {
		return err
	}
	if answer.Status != 200 || !bytes.HasPrefix(answer.Body, []byte(`{"id":"`)) {
		return unexpected("renewal", answer.Status, answer.Body)
	}
	return nil
}

// renewMost is how many leases a request may renew.
const renewMost = 10_000

func (s *cairnSession) renewMany(leases []int) error {
	for len(leases) > 0 {
		part := leases[:min(len(leases), renewMost)]
		leases = leases[len(part):]
		const open, quoted = `{"ids":[`, leaseIDSize + len(`"",`)
		s.post("/v1/leases/keepalive", len(open)+len(part)*quoted-1+len(`]}`))
		s.lines = append(s.lines, open...)
		for _, lease := range part {
			s.lines = append(appendLeaseID(append(s.lines, '"'), lease), `",`...)
		}
		s.lines = append(s.lines[:len(s.lines)-1], `]}`...) // the last one has no comma behind it
		answer, err := s.conn.Do(s.lines)
		if err != nil {
			return err
		}
		if answer.Status != 200 || bytes.Count(answer.Body, []byte(`,"ttl_seconds":`)) != len(part) {
			return unexpected("renewal of many", answer.Status, answer.Body)
		}
	}
	return nil
}

func (s *cairnSession) putLeased(key, lease int) error {
	value := s.data.loaded(key)
	s.lines = fmt.Appendf(s.lines[:0], "PUT /v1/kv/%s?lease=%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n",
		keyName(key), appendLeaseID(nil, lease), s.host, len(value))
	s.lines = append(s.lines, value...)
	answer, err := s.conn.Do(s.lines)
	if err != nil {
		return err
	}
	if answer.Status != 200 && answer.Status != 201 {
		return unexpected("put with a lease", answer.Status, answer.Body)
	}
	return nil
}
