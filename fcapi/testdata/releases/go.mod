module github.com/tangle-network/microvm/fcapi/testdata/releases

go 1.26.0

require go.yaml.in/yaml/v3 v3.0.4
