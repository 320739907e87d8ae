package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// A pair is the two JSON forms of bytes. At most one of them is set.
type pair struct{ Text, Base64 *string }

// split gives the form that b is written in: a string when it is valid UTF-8,
// else base64. Nil bytes are absent.
func split(b []byte) pair {
	if b == nil {
		return pair{}
	}
	if utf8.Valid(b) {
		s := string(b)
		return pair{Text: &s}
	}
	s := base64.StdEncoding.EncodeToString(b)
	return pair{Base64: &s}
}

// splitShort is split for a value of a request, whose length is bounded: it is base64
// also where the escapes of its text would be longer.
func splitShort(b []byte) pair {
	p := split(b)
	if p.Text == nil || escapedLen(b) <= base64.StdEncoding.EncodedLen(len(b))+len("_base64") {
		return p
	}
	s := base64.StdEncoding.EncodeToString(b)
	return pair{Base64: &s}
}

// escapedLen is how long a text is at most as marshal writes it, without its quotes.
func escapedLen(text []byte) int {
	n := len(text) + 3*(bytes.Count(text, []byte("\u2028"))+bytes.Count(text, []byte("\u2029")))
	for _, c := range text {
		switch {
		case c == '"', c == '\\', c == '\n', c == '\r', c == '\t':
			n++
		case c < ' ':
			n += len(`\u0000`) - 1
		}
	}
	return n
}

// join is the reverse of split.
func join(name string, p pair) ([]byte, error) {
	switch {
	case p.Text != nil && p.Base64 != nil:
		return nil, fmt.Errorf("both %s and %s_base64 are given", name, name)
	case p.Text != nil:
		return []byte(*p.Text), nil
	case p.Base64 != nil:
		b, err := base64.StdEncoding.DecodeString(*p.Base64)
		if err != nil {
			return nil, fmt.Errorf("%s_base64: %w", name, err)
		}
		return b, nil
	}
	return nil, nil
}

// splitList gives the form that a list is written in: all strings when all are
// valid UTF-8, else all base64.
func splitList(list [][]byte) (text, b64 []string) {
	plain := true
	for _, b := range list {
		plain = plain && utf8.Valid(b)
	}
	for _, b := range list {
		if plain {
			text = append(text, string(b))
		} else {
			b64 = append(b64, base64.StdEncoding.EncodeToString(b))
		}
	}
	return text, b64
}

func joinList(name string, text, b64 []string) ([][]byte, error) {
	var list [][]byte
	for _, s := range text {
		list = append(list, []byte(s))
	}
	for _, s := range b64 {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return nil, fmt.Errorf("%s_base64: %w", name, err)
		}
		list = append(list, b)
	}
	return list, nil
}

// Marshal is json.Marshal without its escapes of HTML, which would make some texts six
// times as long, and so too long for a request that has room for them.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

// decode is json.Unmarshal with an error that says what was being read.
func decode(what string, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("couldn't read a %s: %w", what, err)
	}
	return nil
}
