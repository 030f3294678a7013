package network

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func name(s string) dnsmessage.Name { return dnsmessage.MustNewName(s + ".") }

func ask4(s string) query {
	return query{id: 7, question: dnsmessage.Question{Name: name(s), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
}

func a(owner, addr string, ttl uint32) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name(owner), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: ttl},
		Body: &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()}}
}

func cname(owner, to string, ttl uint32) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name(owner), Type: dnsmessage.TypeCNAME, Class: dnsmessage.ClassINET, TTL: ttl},
		Body: &dnsmessage.CNAMEResource{CNAME: name(to)}}
}

func said(t testing.TB, q query, id uint16, rrs ...dnsmessage.Resource) []byte {
	t.Helper()
	q.id = id
	b, err := q.reply(dnsmessage.RCodeSuccess, rrs)
	must(t, err)
	return b
}

func all(netip.Addr) bool { return true }

func TestOnlyTheChainFromTheNameIsBelieved(t *testing.T) {
	t.Parallel()
	q := ask4("www.Example.org")
	got, err := q.parseAnswer(said(t, q, 9,
		a("evil.example.net", "6.6.6.6", 60), // beside the question
		a("edge.example.net", "192.0.2.1", 30),
		cname("www.example.org", "edge.example.net", 900),
		a("edge.example.net", "192.0.2.2", 90),
	), 9, all)
	must(t, err)
	if len(got.addrs) != 2 || got.addrs[0].String() != "192.0.2.1" || got.ttl != 30*time.Second || len(got.rrs) != 3 {
		t.Errorf("%+v", got)
	}
	if got.rrs[0].Header.Type != dnsmessage.TypeCNAME || got.rrs[0].Header.TTL != 300 {
		t.Errorf("the alias: %+v", got.rrs[0].Header)
	}
}

func TestAnAnswerToSomethingElseIsNone(t *testing.T) {
	t.Parallel()
	q := ask4("www.example.org")
	good := said(t, q, 9, a("www.example.org", "192.0.2.1", 30))
	notReply, err := q.upstream(9)
	must(t, err)
	for why, b := range map[string][]byte{
		"another id":       said(t, q, 10, a("www.example.org", "192.0.2.1", 30)),
		"another question": said(t, ask4("example.org"), 9, a("www.example.org", "192.0.2.1", 30)),
		"a question":       notReply,
		"cut off":          good[:len(good)-1],
		"nothing":          nil,
		"a ring":           said(t, q, 9, cname("www.example.org", "a.example.org", 1), cname("a.example.org", "www.example.org", 1)),
	} {
		if got, err := q.parseAnswer(b, 9, all); err == nil {
			t.Errorf("%s: %+v", why, got)
		}
	}
	if got, err := q.parseAnswer(good, 9, func(netip.Addr) bool { return false }); err != nil || len(got.addrs)+len(got.rrs) != 0 {
		t.Errorf("what is closed: %+v, %v", got, err)
	}
}

func TestWhatIsNoQuestionIsRefusedOrPassedOver(t *testing.T) {
	t.Parallel()
	pack := func(m dnsmessage.Message) []byte {
		b, err := m.Pack()
		must(t, err)
		return b
	}
	one := dnsmessage.Question{Name: name("example.org"), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	chaos := one
	chaos.Class = dnsmessage.ClassCHAOS
	for why, c := range map[string]struct {
		msg  []byte
		code dnsmessage.RCode
		none bool
	}{
		"good":          {msg: pack(dnsmessage.Message{Questions: []dnsmessage.Question{one}})},
		"two questions": {msg: pack(dnsmessage.Message{Questions: []dnsmessage.Question{one, one}}), code: dnsmessage.RCodeFormatError},
		"no question":   {msg: pack(dnsmessage.Message{}), code: dnsmessage.RCodeFormatError},
		"an update":     {msg: pack(dnsmessage.Message{Header: dnsmessage.Header{OpCode: 5}, Questions: []dnsmessage.Question{one}}), code: dnsmessage.RCodeNotImplemented},
		"chaos":         {msg: pack(dnsmessage.Message{Questions: []dnsmessage.Question{chaos}}), code: dnsmessage.RCodeRefused},
		"an answer":     {msg: pack(dnsmessage.Message{Header: dnsmessage.Header{Response: true}}), none: true},
		"short":         {msg: []byte{1, 2, 3}, none: true},
	} {
		_, code, err := parseQuery(c.msg)
		if (err != nil) != c.none || code != c.code {
			t.Errorf("%s: %v, %v", why, code, err)
		}
	}
}

func FuzzDNS(f *testing.F) {
	q := ask4("www.example.org")
	f.Add(said(f, q, 9, cname("www.example.org", "a.example.org", 1), a("a.example.org", "192.0.2.1", 30)))
	b, err := q.upstream(9)
	must(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := q.parseAnswer(b, 9, all); err == nil {
			if _, err := q.reply(got.code, got.rrs); err != nil {
				t.Errorf("what was read can't be sent on: %v", err)
			}
			if got.ttl < 0 || got.ttl > maxTTL {
				t.Errorf("ttl %v", got.ttl)
			}
		}
		if q, code, err := parseQuery(b); err == nil {
			if _, err := q.reply(code, nil); err != nil {
				t.Errorf("no answer to %+v: %v", q, err)
			}
		}
	})
}
