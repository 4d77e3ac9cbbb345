/* Owns nothing: it reads what all workers have counted. Called for pages of the management
 * listener. Invariant: a page has as many lines as there are instances with a place among the
 * facts, times the figures below. */
#include "gateway/listing.h"

#include "gateway/reply.h"
#include "gateway/service.h"

static const double US_PER_S = 1e6;

static double is_up(const struct gw_instance *instance)
{
    return gw_standing_tenths(instance) > 0;
}

static double share(const struct gw_instance *instance)
{
    return gw_standing_tenths(instance) / (double)GW_TENTHS;
}

static double ejected(const struct gw_instance *instance)
{
    return gw_instance_standing(instance)->ejected_ms > 0;
}

static double in_flight(const struct gw_instance *instance)
{
    return gw_facts_sum(instance->facts, instance->fact, GW_LOAD_REQUESTS);
}

static double open_streams(const struct gw_instance *instance)
{
    return gw_facts_sum(instance->facts, instance->fact, GW_LOAD_STREAMS);
}

static double answer_s(const struct gw_instance *instance)
{
    return gw_facts_answer_us(instance->facts, instance->fact) / US_PER_S;
}

static double failures(const struct gw_instance *instance)
{
    return (double)gw_instance_standing(instance)->failed_total;
}

static double ejections(const struct gw_instance *instance)
{
    return (double)gw_instance_standing(instance)->ejected_total;
}

static double failed_checks(const struct gw_instance *instance)
{
    return (double)gw_instance_standing(instance)->failed_checks_total;
}

static const struct {
    const char *name, *type, *help;
    double (*value)(const struct gw_instance *instance);
} of_instance[] = {
    {"up", "gauge", "Whether the instance may be asked.", is_up},
    {"weight_share", "gauge", "How much of its weight counts: less in a slow start.", share},
    {"ejected", "gauge", "Whether it is ejected for its failures.", ejected},
    {"in_flight", "gauge", "Requests that it is at, streams included.", in_flight},
    {"open_streams", "gauge", "Open event streams of it.", open_streams},
    {"response_seconds", "gauge", "Moving average of the time to its response head.", answer_s},
    {"failures_total", "counter", "Requests that it failed.", failures},
    {"ejections_total", "counter", "Times that it was ejected.", ejections},
    {"failed_checks_total", "counter", "Health checks that it failed.", failed_checks},
};
enum { FIGURES = sizeof of_instance / sizeof of_instance[0] };

static double circuit(const struct gw_breaker *breaker)
{
    return breaker->circuit;
}

static double opened(const struct gw_breaker *breaker)
{
    return (double)breaker->opened_total;
}

static double refused(const struct gw_breaker *breaker)
{
    return (double)breaker->refused_total;
}

static const struct {
    const char *name, *type, *help;
    double (*value)(const struct gw_breaker *breaker);
} of_circuit[] = {
    {"circuit", "gauge", "The service's circuit: 0 closed, 1 open, 2 half open.", circuit},
    {"circuit_opened_total", "counter", "Times that the circuit has opened.", opened},
    {"circuit_refused_total", "counter", "Requests that the circuit has refused.", refused},
};

static void write_type(struct gw_buf *out, const char *of, const char *name, const char *type,
                       const char *help)
{
    gw_buf_printf(out, "# HELP gatewayd_%s_%s %s\n# TYPE gatewayd_%s_%s %s\n", of, name, help, of,
                  name, type);
}

static void write_label(struct gw_buf *out, const char *name, const char *value)
{
    gw_buf_printf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\n')
            gw_buf_append(out, "\\n", 2);
        else if (*value == '"' || *value == '\\')
            gw_buf_printf(out, "\\%c", *value);
        else
            gw_buf_append(out, value, 1);
    }
    gw_buf_append(out, "\"", 1);
}

/* A page that is being written. */
struct page {
    struct gw_buf *out;
    unsigned figure;  /* of_instance */
    unsigned written; /* instances so far */
};

static void for_each(const struct gw_generation *generation, struct page *page,
                     void (*each)(struct page *page, const struct gw_instance *instance))
{
    for (unsigned i = 0; i < generation->service_count; i++) {
        struct gw_list *all = &generation->services[i]->instances;
        for (struct gw_list *at = all->next; at != all; at = at->next) {
            const struct gw_instance *instance = gw_service_instance(at);
            if (!instance->fact)
                continue;
            each(page, instance);
            page->written++;
        }
    }
}

static void write_sample(struct page *page, const struct gw_instance *instance)
{
    struct gw_buf *out = page->out;
    gw_buf_printf(out, "gatewayd_instance_%s{", of_instance[page->figure].name);
    write_label(out, "service", instance->service);
    gw_buf_append(out, ",", 1);
    write_label(out, "instance", instance->id);
    gw_buf_printf(out, "} %.16g\n", of_instance[page->figure].value(instance));
}

static bool has_circuit(const struct gw_service *service)
{
    return service->breaker.failures && service->fact;
}

static void write_circuits(const struct gw_generation *generation, unsigned figure,
                           struct gw_buf *out)
{
    bool first = true;
    for (unsigned i = 0; i < generation->service_count; i++) {
        const struct gw_service *service = generation->services[i];
        if (!has_circuit(service))
            continue;
        if (first)
            write_type(out, "service", of_circuit[figure].name, of_circuit[figure].type,
                       of_circuit[figure].help);
        first = false;
        gw_buf_printf(out, "gatewayd_service_%s{", of_circuit[figure].name);
        write_label(out, "service", service->name);
        gw_buf_printf(out, "} %.16g\n", of_circuit[figure].value(gw_service_breaker(service)));
    }
}

void gw_listing_metrics(const struct gw_generation *generation, struct gw_buf *out)
{
    for (unsigned i = 0; i < FIGURES; i++) {
        write_type(out, "instance", of_instance[i].name, of_instance[i].type, of_instance[i].help);
        for_each(generation, &(struct page){.out = out, .figure = i}, write_sample);
    }
    for (unsigned i = 0; i < sizeof of_circuit / sizeof of_circuit[0]; i++)
        write_circuits(generation, i, out);
}

static void write_object(struct page *page, const struct gw_instance *instance)
{
    struct gw_buf *out = page->out;
    char addr[GW_ADDR_TEXT];
    gw_buf_printf(out, "%s\n{\"service\":", page->written ? "," : "");
    gw_json_text(out, gw_slice_str(instance->service));
    gw_buf_add(out, GW_SLICE(",\"instance\":"));
    gw_json_text(out, gw_slice_str(instance->id));
    gw_buf_add(out, GW_SLICE(",\"address\":"));
    gw_json_text(out, gw_slice_str(gw_addr_text(&instance->addr, addr)));
    gw_buf_printf(out, ",\"state\":\"%s\"", gw_standing_state(instance));
    for (unsigned i = 0; i < FIGURES; i++)
        gw_buf_printf(out, ",\"%s\":%.16g", of_instance[i].name, of_instance[i].value(instance));
    gw_buf_append(out, "}", 1);
}

void gw_listing_json(const struct gw_generation *generation, struct gw_buf *out)
{
    gw_buf_printf(out, "{\"generation\":%llu,\"instances\":[",
                  (unsigned long long)generation->number);
    for_each(generation, &(struct page){.out = out}, write_object);
    gw_buf_add(out, GW_SLICE("\n]}\n"));
}
