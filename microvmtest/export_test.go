package microvmtest

// RunSection runs one section of the suite.
var RunSection = runSection

// Sections are the names of the suite's sections.
func Sections() []string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}
