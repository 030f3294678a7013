module github.com/tangle-network/microvm/bench

go 1.26.0

require github.com/tangle-network/microvm v0.0.0

require golang.org/x/sys v0.50.0

replace github.com/tangle-network/microvm => ../
