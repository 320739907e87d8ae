package api

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// A value of a request is text, unless that is longer than base64 or no text.
func TestFormsOfValues(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{Put{Key: []byte("<a>"), Value: []byte("a < b && c > d\n")}, `{"key":"<a>","value":"a < b && c > d\n"}`},
		{Put{Key: []byte("a"), Value: []byte(`{"a":"b"}`)}, `{"key":"a","value":"{\"a\":\"b\"}"}`},
		{Put{Key: []byte("a"), Value: []byte("\x01\x01\x01\x01")}, `{"key":"a","value_base64":"AQEBAQ=="}`},
		{Put{Key: []byte("a"), Value: []byte{}}, `{"key":"a","value":""}`},
		{Compare{Target: TargetValue, Operator: Eq, Value: []byte("\x01\x01\x01\x01")}, `{"value_base64":{"eq":"AQEBAQ=="}}`},
		{Campaign{Lease: "01J", Value: []byte("\x01\x01\x01\x01")}, `{"lease":"01J","value_base64":"AQEBAQ=="}`},
		{Proclaim{Token: 7, Value: []byte("\x01\x01\x01\x01")}, `{"token":7,"value_base64":"AQEBAQ=="}`},
	} {
		if got, err := Marshal(c.v); err != nil || string(got) != c.want {
			t.Errorf("got  %s, %v\nwant %s", got, err, c.want)
		}
	}
}

// No text takes more than base64 would, whatever it is made of.
func TestShortestForm(t *testing.T) {
	for r := range rune(0x3000) {
		if !utf8.ValidRune(r) {
			continue
		}
		text := strings.Repeat(string(r), 100)
		p := splitShort([]byte(text))
		if p.Text == nil {
			continue
		}
		written, err := Marshal(*p.Text)
		if most := base64.StdEncoding.EncodedLen(len(text)) + len("_base64"); err != nil || len(written)-2 > most {
			t.Errorf("%q is written in %d bytes, want %d at most: %v", r, len(written)-2, most, err)
		}
		var read string
		if err := json.Unmarshal(written, &read); err != nil || read != text {
			t.Errorf("%q is read as %q: %v", r, read, err)
		}
	}
}
