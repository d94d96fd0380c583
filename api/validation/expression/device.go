package expression

import (
	"fmt"
	"math"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/ext"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/version"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
)

// deviceEnv knows the variable device, as a selector of devices sees it.
var deviceEnv = sync.OnceValues(func() (*cel.Env, error) {
	named := func(value *apiservercel.DeclType) *apiservercel.DeclType {
		inner := apiservercel.NewMapType(apiservercel.StringType, value, resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)
		return apiservercel.NewMapType(apiservercel.StringType, inner, resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice)
	}
	fields := map[string]*apiservercel.DeclField{}
	for name, t := range map[string]*apiservercel.DeclType{"driver": apiservercel.StringType,
		"attributes": named(apiservercel.AnyType), "capacity": named(apiservercel.QuantityDeclType), "allowMultipleAllocations": apiservercel.BoolType} {
		fields[name] = apiservercel.NewDeclField(name, t, true, nil, nil)
	}
	device := apiservercel.NewObjectType("kubernetes.DRADevice", fields)
	set, err := base().Extend(environment.VersionedOptions{IntroducedVersion: version.MajorMinor(1, 31),
		EnvOptions: []cel.EnvOption{cel.Variable("device", device.CelType()), library.SemverLib(), ext.Bindings(ext.BindingsVersion(0))}, DeclTypes: []*apiservercel.DeclType{device}})
	if err != nil {
		return nil, fmt.Errorf("build environment of device selectors: %w", err)
	}
	return set.Env(environment.NewExpressions)
})

// Device reports at p why text selects no devices: it does not compile, is no condition, or may take too long.
func Device(text string, p *field.Path) field.ErrorList {
	env, err := deviceEnv()
	if err != nil {
		return field.ErrorList{field.InternalError(p, err)}
	}
	ast, issues := env.Compile(text)
	if issues != nil && issues.Err() != nil {
		return field.ErrorList{field.Invalid(p, text, "compilation failed: "+issues.String())}
	}
	if t := ast.OutputType(); t != cel.BoolType && t != cel.AnyType && t != cel.DynType {
		return field.ErrorList{field.Invalid(p, text, fmt.Sprintf("must evaluate to %v or the unknown type, not %v", cel.BoolType, t))}
	}
	cost, err := env.EstimateCost(ast, &library.CostEstimator{SizeEstimator: deviceSizes{}})
	if err != nil {
		return field.ErrorList{field.InternalError(p, fmt.Errorf("estimate cost: %w", err))}
	}
	if cost.Max > resourcev1.CELSelectorExpressionMaxCost {
		return field.ErrorList{field.Forbidden(p, "too complex, exceeds cost limit")}
	}
	return nil
}

// deviceSizes bounds what a device can hold.
type deviceSizes struct{}

// EstimateSize implements checker.CostEstimator.
func (deviceSizes) EstimateSize(e checker.AstNode) *checker.SizeEstimate {
	most := uint64(math.MaxUint64)
	switch path := e.Path(); {
	case len(path) == 2 && path[1] == "driver":
		most = resourcev1.DriverNameMaxLength
	case len(path) >= 2 && path[1] == "attributes" && len(path) > 3:
		most = resourcev1.DeviceAttributeMaxValueLength
	case len(path) >= 2 && (path[1] == "attributes" || path[1] == "capacity"):
		most = resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice
	default:
		return nil
	}
	return &checker.SizeEstimate{Min: 0, Max: most}
}

// EstimateCallCost implements checker.CostEstimator: calls cost what the language says.
func (deviceSizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}
