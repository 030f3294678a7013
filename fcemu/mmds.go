package fcemu

import "slices"

// mmdsStore is the contents of the metadata service.
type mmdsStore struct {
	limit       int // bytes of compact JSON
	data        *node
	initialized bool
}

// put replaces the contents.
func (m *mmdsStore) put(n *node) *fault {
	if len(appendValue(nil, n)) > m.limit {
		return m.tooLarge()
	}
	m.data, m.initialized = n, true
	return nil
}

// patch merges into the contents.
func (m *mmdsStore) patch(n *node) *fault {
	if !m.initialized {
		return refuse("MMDS error: The MMDS data store is not initialized.")
	}
	merged := mergePatch(m.data, n)
	if len(appendValue(nil, &merged)) > m.limit {
		return m.tooLarge()
	}
	m.data = &merged
	return nil
}

func (m *mmdsStore) tooLarge() *fault {
	return &fault{413, "MMDS limit exceeded error: The MMDS patch request doesn't fit."}
}

// json is the contents as GET /mmds has them; nothing and null are both {}.
func (m *mmdsStore) json() []byte {
	if m.data == nil || m.data.kind == kindNull {
		return []byte("{}")
	}
	return appendValue(nil, m.data)
}

// mmdsReady refuses access to the metadata of a guest that was started without
// a metadata service.
func (c *controller) mmdsReady() *fault {
	if c.started() && c.cfg.MMDSConfig == nil {
		return refuse("MMDS error: The MMDS data store is not initialized.")
	}
	return nil
}

func (c *controller) mmdsData() ([]byte, *fault) {
	if f := c.mmdsReady(); f != nil {
		return nil, f
	}
	return c.mmds.json(), nil
}

func (c *controller) putMMDS(n *node) *fault {
	if f := c.mmdsReady(); f != nil {
		return f
	}
	return c.mmds.put(n)
}

func (c *controller) patchMMDS(n *node) *fault {
	if f := c.mmdsReady(); f != nil {
		return f
	}
	return c.mmds.patch(n)
}

func (c *controller) putMMDSConfig(m MMDSConfig) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	c.bootPath = true
	if m.IPv4Address == nil {
		addr := defaultMMDSAddress
		m.IPv4Address = &addr
	}
	switch {
	case !linkLocal(*m.IPv4Address):
		return refuse("MMDS config error: The MMDS IPv4 address is not link local.")
	case len(m.NetworkInterfaces) == 0:
		return refuse("MMDS config error: The list of network interface IDs that allow forwarding MMDS requests is empty.")
	}
	// The answer lists interfaces in the order of their own requests.
	var ids []string
	for _, n := range c.cfg.NetworkInterfaces {
		if slices.Contains(m.NetworkInterfaces, n.IfaceID) {
			ids = append(ids, n.IfaceID)
		}
	}
	for _, id := range m.NetworkInterfaces {
		if !slices.Contains(ids, id) {
			return refuse("MMDS config error: The list of network interface IDs provided contains at least one ID that does not correspond to any existing network interface: " + id)
		}
	}
	m.NetworkInterfaces = ids
	old := c.cfg.MMDSConfig
	c.cfg.MMDSConfig = &m
	if err := c.engine.Attach(c.ctx, &c.cfg, "mmds/config", ""); err != nil {
		c.cfg.MMDSConfig = old
		return engineFault("MMDS config error", err)
	}
	return nil
}
