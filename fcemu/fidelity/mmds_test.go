package fidelity

import "strings"

func mmdsSequences() []sequence {
	const config = "PUT /mmds/config "
	const iface = `PUT /network-interfaces/e {"iface_id":"e","host_dev_name":"tap0"}`
	list := []sequence{
		{name: "life of the data", steps: []string{`PATCH /mmds {"a":1}`, "GET /mmds", `PUT /mmds {"z":{"b":1.50,"c":[1,2]},"a":"é"}`, "GET /mmds",
			`PATCH /mmds {"z":{"b":null,"d":{"e":null,"f":1}}}`, "GET /mmds", `PATCH /mmds 1`, "GET /mmds", `PATCH /mmds null`, "GET /mmds", "PUT /mmds [1]", "GET /mmds", "PUT /mmds null", "GET /mmds", `PATCH /mmds {"a":1}`, "GET /mmds"}},
		{name: "the limit", steps: []string{`PUT /mmds {"a":"` + strings.Repeat("x", 51000) + `"}`, `PATCH /mmds {"b":"` + strings.Repeat("x", 300) + `"}`, `PATCH /mmds {"b":1}`}},
		{name: "a limit of its own", args: []string{"--mmds-size-limit", "20"}, steps: []string{`PUT /mmds {"a":"12345678901234"}`, `PUT /mmds {"a":"123456789012"}`, `PUT /mmds {"a":"12345678901"}`, `PATCH /mmds {"b":1}`, "GET /mmds"}},
		{name: "the limit of bodies is its limit too", args: []string{"--http-api-max-payload-size", "20"}, steps: []string{`PUT /mmds {"a":"123456789012"}`, `PATCH /mmds {"b":1}`, "GET /mmds"}},
		{name: "data of the command line", args: []string{"--metadata", "meta.json"}, steps: []string{"GET /mmds", `PATCH /mmds {"b":1}`, "GET /mmds"}},
	}
	nets := []sequence{}
	for _, c := range []string{`{"network_interfaces":["e"]}`, `{"network_interfaces":["e"],"version":"V1"}`, `{"network_interfaces":["e"],"version":"V2"}`, `{"network_interfaces":["e"],"version":"V3"}`, `{"network_interfaces":["e"],"version":null}`,
		`{"network_interfaces":["e"],"ipv4_address":"169.254.1.0"}`, `{"network_interfaces":["e"],"ipv4_address":"169.254.0.255"}`, `{"network_interfaces":["e"],"ipv4_address":"169.254.254.255"}`, `{"network_interfaces":["e"],"ipv4_address":"169.254.255.0"}`,
		`{"network_interfaces":["e"],"ipv4_address":"10.0.0.1"}`, `{"network_interfaces":["e"],"ipv4_address":"169.254.1"}`, `{"network_interfaces":["e"],"ipv4_address":"169.254.01.1"}`, `{"network_interfaces":["e"],"ipv4_address":"::1"}`, `{"network_interfaces":["e"],"ipv4_address":null}`,
		`{"network_interfaces":["e"],"imds_compat":true}`, `{"network_interfaces":["e"],"imds_compat":1}`, `{"network_interfaces":[]}`, `{"network_interfaces":["e","e"]}`, `{"network_interfaces":["f"]}`, `{"network_interfaces":["e","f"]}`, `{"network_interfaces":"e"}`, `{"network_interfaces":[1]}`, `{"network_interfaces":null}`, `{}`, `{"network_interfaces":["e"],"x":1}`} {
		nets = append(nets, sequence{name: "config " + c, net: true, steps: []string{iface, config + c, "GET /vm/config"}})
	}
	nets = append(nets,
		sequence{name: "config twice", net: true, steps: []string{iface, config + `{"network_interfaces":["e"],"version":"V2"}`, config + `{"network_interfaces":["e"]}`, "GET /vm/config"}},
		sequence{name: "config, then another interface of that name", net: true, steps: []string{iface, config + `{"network_interfaces":["e"],"version":"V2"}`, iface, "GET /vm/config"}})
	return join(list, nets,
		with("PUT /mmds @", "{}", "[]", `"x"`, "1", "true", "null", "1E400", "-0", `{"a":1,"a":2}`, "{", "", `{"a":1.0}`, `{"a":1e5}`, `{"a":18446744073709551616}`, `{"a":-9223372036854775809}`, `"\ud83d\ude00"`),
		each("PUT /mmds", "PATCH /mmds", "PATCH /mmds {", "PUT /mmds/x {}", "PUT /mmds/ {}", "PATCH /mmds/x {}", "GET /mmds/x", "DELETE /mmds", "PUT /mmds/config", config+"1", config+`{"network_interfaces":["e"]}`))
}
