# status_page.html as the elements of a C array. Made with POSIX od and sed alone.
STATUS_PAGE := build/include/status_page.inc
INC_pkg/kube += -iquote build/include

$(STATUS_PAGE): pkg/kube/status_page.html
	@mkdir -p $(@D)
	@od -An -v -tu1 $< | sed 's/[0-9][0-9]*/&,/g' >$@

$(foreach c,release asan tsan check,build/$(c)/obj/pkg/kube/status_page.o): | $(STATUS_PAGE)
