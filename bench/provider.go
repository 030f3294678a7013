package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tangle-network/microvm/firecracker"
)

// provider is ours: it does all that an operator gets from it.
type provider struct {
	by   string
	r    *firecracker.Runtime
	next int
	ids  []string
}

func newProvider(ctx context.Context, s setting, by, state string) (*provider, error) {
	r, err := firecracker.Open(ctx, s.config(state))
	if err != nil {
		return nil, err
	}
	return &provider{by: by, r: r}, nil
}

func (p *provider) name() string { return p.by }

func (p *provider) up(ctx context.Context, n int) (time.Duration, error) {
	for range n {
		p.next++
		p.ids = append(p.ids, fmt.Sprintf("vm-%d", p.next))
	}
	began := time.Now()
	err := each(p.ids, func(id string) error {
		if err := p.r.CreateVM(ctx, id); err != nil {
			return err
		}
		return p.r.StartVM(ctx, id)
	})
	return time.Since(began), err
}

func (p *provider) down(ctx context.Context) (time.Duration, error) {
	ids := p.ids
	p.ids = nil
	began := time.Now()
	err := each(ids, func(id string) error {
		if err := p.r.StopVM(ctx, id); err != nil {
			return err
		}
		return p.r.DestroyVM(ctx, id)
	})
	took := time.Since(began)
	_, perr := p.r.Prune(ctx, time.Now())
	return took, errors.Join(err, perr)
}

func (p *provider) close() error {
	_, err := p.down(context.Background())
	return errors.Join(err, p.r.Close())
}

// each calls f for all at once; one alone needs no goroutine.
func each[T any](all []T, f func(T) error) error {
	if len(all) == 1 {
		return f(all[0])
	}
	errs := make(chan error, len(all))
	for _, one := range all {
		go func() { errs <- f(one) }()
	}
	var joined []error
	for range all {
		joined = append(joined, <-errs)
	}
	return errors.Join(joined...)
}
