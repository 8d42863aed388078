/* Unit tests: TAP on standard output, one program a file. */
#ifndef KV_TESTS_TAP_H
#define KV_TESTS_TAP_H

#include <math.h>
#include <stdio.h>
#include <string.h>

static int check_n, check_bad;

/* ok(condition, "what should hold %d", …) */
#define ok(cond, ...) check_ok_((cond) ? 1 : 0, #cond, __FILE__, __LINE__, __VA_ARGS__)
#define is_int(got, want, ...) check_int_((long long)(got), (long long)(want), __FILE__, __LINE__, __VA_ARGS__)
#define is_str(got, want, ...) check_str_((got), (want), __FILE__, __LINE__, __VA_ARGS__)
/* |got - want| <= tol */
#define is_near(got, want, tol, ...) check_near_((got), (want), (tol), __FILE__, __LINE__, __VA_ARGS__)

#define CHECK_NAME_(fmt) do { va_list ap_; va_start(ap_, fmt); vprintf(fmt, ap_); va_end(ap_); putchar('\n'); } while (0)

#include <stdarg.h>

__attribute__((unused, format(printf, 5, 6))) static int
check_ok_(int good, const char *expr, const char *file, int line, const char *fmt, ...)
{
	printf("%sok %d - ", good ? "" : "not ", ++check_n);
	CHECK_NAME_(fmt);
	if (!good) {
		check_bad++;
		printf("# %s:%d: %s\n", file, line, expr);
	}
	return good;
}

__attribute__((unused, format(printf, 5, 6))) static int
check_int_(long long got, long long want, const char *file, int line, const char *fmt, ...)
{
	printf("%sok %d - ", got == want ? "" : "not ", ++check_n);
	CHECK_NAME_(fmt);
	if (got != want) {
		check_bad++;
		printf("# %s:%d: got %lld, want %lld\n", file, line, got, want);
	}
	return got == want;
}

__attribute__((unused, format(printf, 5, 6))) static int
check_str_(const char *got, const char *want, const char *file, int line, const char *fmt, ...)
{
	int good = got && want && !strcmp(got, want);

	printf("%sok %d - ", good ? "" : "not ", ++check_n);
	CHECK_NAME_(fmt);
	if (!good) {
		check_bad++;
		printf("# %s:%d: got \"%s\", want \"%s\"\n", file, line, got ? got : "(null)", want ? want : "(null)");
	}
	return good;
}

__attribute__((unused, format(printf, 6, 7))) static int
check_near_(double got, double want, double tol, const char *file, int line, const char *fmt, ...)
{
	int good = fabs(got - want) <= tol;

	printf("%sok %d - ", good ? "" : "not ", ++check_n);
	CHECK_NAME_(fmt);
	if (!good) {
		check_bad++;
		printf("# %s:%d: got %.9g, want %.9g within %g\n", file, line, got, want, tol);
	}
	return good;
}

/* return done_testing(); at the end of main */
__attribute__((unused)) static int
done_testing(void)
{
	printf("1..%d\n", check_n);
	return check_bad != 0;
}

#endif
