package network

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The bounds of what a guest is answered.
const (
	maxDNSMessage = 1232 // over UDP: what passes unfragmented (DNS flag day 2020)
	maxTTL        = 5 * time.Minute
	maxAddrs      = 64 // of one answer; the rest is left out
	// A connection is made after its name was resolved: that much time it has, however
	// short the answer's TTL.
	minOpen = 10 * time.Second
)

// query is a guest's question.
type query struct {
	id       uint16
	question dnsmessage.Question
	desired  bool // recursion
}

// errNoAnswer is for what is not even a question: nothing is sent back.
var errNoAnswer = errors.New("not a question")

// parseQuery reads a guest's message. One with anything else than one question is
// an error that has an answer, if it has a header.
func parseQuery(b []byte) (query, dnsmessage.RCode, error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.Response {
		return query{}, 0, errNoAnswer
	}
	q := query{id: h.ID, desired: h.RecursionDesired}
	if h.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, nil
	}
	if q.question, err = p.Question(); err != nil {
		return q, dnsmessage.RCodeFormatError, nil
	}
	if _, err := p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return q, dnsmessage.RCodeFormatError, nil
	}
	if q.question.Class != dnsmessage.ClassINET {
		return q, dnsmessage.RCodeRefused, nil
	}
	return q, dnsmessage.RCodeSuccess, nil
}

// name is the question's, as rules have it: without the dot at its end.
func (q query) name() string {
	return strings.ToLower(strings.TrimSuffix(q.question.Name.String(), "."))
}

// reply is the message that answers q.
func (q query) reply(code dnsmessage.RCode, answers []dnsmessage.Resource) ([]byte, error) {
	m := dnsmessage.Message{
		Header:  dnsmessage.Header{ID: q.id, Response: true, RecursionDesired: q.desired, RecursionAvailable: true, RCode: code},
		Answers: answers,
	}
	if q.question.Name.Length > 0 {
		m.Questions = []dnsmessage.Question{q.question}
	}
	return m.Pack()
}

// truncated is the reply that sends the guest to TCP.
func (q query) truncated() ([]byte, error) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.id, Response: true, Truncated: true, RecursionDesired: q.desired, RecursionAvailable: true}, Questions: []dnsmessage.Question{q.question}}
	return m.Pack()
}

// upstream is the message that a name server is asked with.
func (q query) upstream(id uint16) ([]byte, error) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true}, Questions: []dnsmessage.Question{q.question}}
	return m.Pack()
}

// answer is what a name server said, cut down to what the guest may see.
type answer struct {
	code  dnsmessage.RCode
	rrs   []dnsmessage.Resource // aliases and addresses, in the order of the chain
	addrs []netip.Addr
	ttl   time.Duration // the shortest
	cut   bool          // the server says that there is more over TCP
}

var errBadAnswer = errors.New("the name server's answer is none to the question")

// parseAnswer reads a name server's message: only aliases that begin at the name that
// was asked for, and the addresses at their end, are taken. Addresses that keep does
// not let pass are left out.
func (q query) parseAnswer(b []byte, id uint16, keep func(netip.Addr) bool) (answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || !h.Response || h.ID != id {
		return answer{}, errBadAnswer
	}
	asked, err := p.Question()
	if err != nil || !sameName(asked.Name, q.question.Name) || asked.Type != q.question.Type || asked.Class != q.question.Class {
		return answer{}, errBadAnswer
	}
	if err := p.SkipAllQuestions(); err != nil {
		return answer{}, errBadAnswer
	}
	out := answer{code: h.RCode, cut: h.Truncated, ttl: maxTTL}
	if h.Truncated {
		return out, nil
	}
	all, err := p.AllAnswers()
	if err != nil {
		return answer{}, errBadAnswer
	}
	chain := []dnsmessage.Name{q.question.Name}
	for range 16 { // aliases of aliases
		at := chain[len(chain)-1]
		i := slices.IndexFunc(all, func(r dnsmessage.Resource) bool {
			return r.Header.Type == dnsmessage.TypeCNAME && sameName(r.Header.Name, at)
		})
		if i < 0 {
			break
		}
		to := all[i].Body.(*dnsmessage.CNAMEResource).CNAME
		if slices.ContainsFunc(chain, func(n dnsmessage.Name) bool { return sameName(n, to) }) {
			return answer{}, errBadAnswer
		}
		out.add(all[i])
		chain = append(chain, to)
	}
	seen := 0
	for _, r := range all {
		if r.Header.Type != q.question.Type || !sameName(r.Header.Name, chain[len(chain)-1]) {
			continue
		}
		var a netip.Addr
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			a = netip.AddrFrom4(body.A)
		case *dnsmessage.AAAAResource:
			a = netip.AddrFrom16(body.AAAA)
		default:
			continue
		}
		if seen++; seen > maxAddrs {
			break
		}
		if keep(a) {
			out.addrs = append(out.addrs, a)
			out.add(r)
		}
	}
	return out, nil
}

func (a *answer) add(r dnsmessage.Resource) {
	ttl := min(time.Duration(r.Header.TTL)*time.Second, maxTTL)
	r.Header.TTL = uint32(ttl / time.Second)
	a.ttl = min(a.ttl, ttl)
	a.rrs = append(a.rrs, r)
}

func sameName(a, b dnsmessage.Name) bool {
	return strings.EqualFold(a.String(), b.String())
}
