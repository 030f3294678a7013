package microvmtest

// RunSection runs one section of the suite.
var RunSection = runSection
