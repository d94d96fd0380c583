// Package expression compiles the CEL expressions that admission policies and webhooks carry, to see whether they compile.
// Validation calls it; the environments are built when the first expression is judged, so that a process that never sees
// one does not pay for them. It evaluates nothing.
package expression

import (
	"fmt"
	"sync"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Result is what an expression has to come to.
type Result int

const (
	Bool Result = iota
	String
	StringOrNull
	Any
	// Object is an apply configuration, Patches a list of JSON patch operations.
	Object
	Patches
)

func (r Result) types() []*cel.Type {
	switch r {
	case Bool:
		return []*cel.Type{cel.BoolType}
	case String:
		return []*cel.Type{cel.StringType}
	case StringOrNull:
		return []*cel.Type{cel.StringType, cel.NullType}
	case Object:
		return []*cel.Type{cel.ObjectType("Object")}
	case Patches:
		return []*cel.Type{cel.ListType(cel.ObjectType("JSONPatch"))}
	}
	return []*cel.Type{cel.AnyType, cel.DynType}
}

type accessor struct {
	name, text string
	result     Result
}

func (a *accessor) GetExpression() string    { return a.text }
func (a *accessor) GetName() string          { return a.name }
func (a *accessor) ReturnTypes() []*cel.Type { return a.result.types() }

// Options says which variables an expression may name beside the request's.
type Options struct{ Params, Authorizer, Patch bool }

// Compiler compiles the expressions of one object; variables stored in it are known to those that follow. It is not safe
// for use by several goroutines.
type Compiler struct {
	options  plugincel.OptionalVariableDeclarations
	compiler interface {
		CompileCELExpression(plugincel.ExpressionAccessor, plugincel.OptionalVariableDeclarations, environment.Type) plugincel.CompilationResult
	}
	composed *plugincel.CompositedCompiler
}

var base = sync.OnceValue(func() *environment.EnvSet {
	return environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
})

var plain = sync.OnceValue(func() plugincel.Compiler { return plugincel.NewCompiler(base()) })

// New returns a compiler without variables of its own.
func New(o Options) *Compiler {
	return &Compiler{options: declarations(o), compiler: plain()}
}

// NewComposed returns a compiler that knows variables.
func NewComposed(o Options) (*Compiler, error) {
	c, err := plugincel.NewCompositedCompiler(base())
	if err != nil {
		return nil, fmt.Errorf("build expression environment: %w", err)
	}
	return &Compiler{options: declarations(o), compiler: c, composed: c}, nil
}

func declarations(o Options) plugincel.OptionalVariableDeclarations {
	return plugincel.OptionalVariableDeclarations{HasParams: o.Params, HasAuthorizer: o.Authorizer, HasPatchTypes: o.Patch}
}

// Check compiles text and reports at p why it does not.
func (c *Compiler) Check(text string, result Result, p *field.Path) field.ErrorList {
	return verdict(c.compiler.CompileCELExpression(&accessor{text: text, result: result}, c.options, environment.NewExpressions), text, p)
}

// Variable compiles text and makes it known under name.
func (c *Compiler) Variable(name, text string, p *field.Path) field.ErrorList {
	return verdict(c.composed.CompileAndStoreVariable(&accessor{name: name, text: text, result: Any}, c.options, environment.NewExpressions), text, p)
}

func verdict(r plugincel.CompilationResult, text string, p *field.Path) field.ErrorList {
	if r.Error == nil {
		return nil
	}
	switch r.Error.Type {
	case apiservercel.ErrorTypeRequired:
		return field.ErrorList{field.Required(p, r.Error.Detail)}
	case apiservercel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(p, text, r.Error.Detail)}
	}
	return field.ErrorList{field.InternalError(p, r.Error)}
}
