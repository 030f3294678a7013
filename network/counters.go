package network

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
)

// Counters are what has passed a VM's network since it was made. Directions are the
// guest's: Tx is what it sent.
type Counters struct {
	TxPackets uint64 `json:"tx_packets"`
	TxBytes   uint64 `json:"tx_bytes"`
	// Dropped by the policy, or sent to the gateway in vain.
	TxDroppedPackets uint64 `json:"tx_dropped_packets"`
	TxDroppedBytes   uint64 `json:"tx_dropped_bytes"`
	RxPackets        uint64 `json:"rx_packets"`
	RxBytes          uint64 `json:"rx_bytes"`
	RxDroppedPackets uint64 `json:"rx_dropped_packets"`
	RxDroppedBytes   uint64 `json:"rx_dropped_bytes"`
	// With a MAC or an address that is not the guest's; these are in no other counter.
	SpoofedPackets uint64 `json:"spoofed_packets"`
	SpoofedBytes   uint64 `json:"spoofed_bytes"`
}

// Counters reads the counters of a VM.
func (m *Manager) Counters(uid string) (Counters, error) {
	var out Counters
	index, _, err := m.find(uid)
	if err == nil {
		err = m.insideNFT(index, func(c *nftables.Conn) error {
			objs, err := c.GetObjects(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
			if err != nil {
				return err
			}
			guard, err := c.GetObjects(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: tableName})
			if err != nil {
				return err
			}
			return out.fill(append(objs, guard...))
		})
	}
	if err != nil {
		return Counters{}, fmt.Errorf("network of VM %s: counters: %w", uid, err)
	}
	return out, nil
}

func (c *Counters) fill(objs []nftables.Obj) error {
	to := map[string][2]*uint64{
		cntTx: {&c.TxPackets, &c.TxBytes}, cntTxDropped: {&c.TxDroppedPackets, &c.TxDroppedBytes},
		cntRx: {&c.RxPackets, &c.RxBytes}, cntRxDropped: {&c.RxDroppedPackets, &c.RxDroppedBytes},
		cntSpoofed: {&c.SpoofedPackets, &c.SpoofedBytes},
	}
	seen := 0
	for _, o := range objs {
		cnt, ok := o.(*nftables.CounterObj)
		if !ok {
			continue
		}
		if p, ok := to[cnt.Name]; ok {
			*p[0], *p[1] = cnt.Packets, cnt.Bytes
			seen++
		}
	}
	if seen < len(to) {
		return errors.New("the namespace's rules are not whole: stop the VM and start it again")
	}
	return nil
}
