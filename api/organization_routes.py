"""The routes of an organization: who asks, its closed period, templates, directory and forgotten people."""

from collections.abc import Sequence

from api.endpoints import directory, forgetting, me, periods, templates
from api.route import KEY, MATCH, NOT_CHANGED, REUSED, Route
from schemas.api.directory import (
    ActivityTypesResponse,
    ChaptersQuery,
    ChaptersResponse,
    CoordinatorsQuery,
    CoordinatorsResponse,
    DirectoryQuery,
    MentorsQuery,
    MentorsResponse,
)
from schemas.api.forgetting import ForgettingResponse, MentorToForget
from schemas.api.me import MeResponse
from schemas.api.periods import PeriodClosing, PeriodHistoryResponse, PeriodQuery, PeriodResponse
from schemas.api.templates import NewTemplate, TemplateChange, TemplateResponse, TemplatesQuery, TemplatesResponse
from schemas.paths import API_ROOT, CLOSED_PERIOD_PATH, FORGETTINGS_PATH

TEMPLATES = API_ROOT + "/templates"
DIRECTORY = API_ROOT + "/directory"
_NOT_ONES_SCOPE = ("not_your_scope", "coordinator_unknown")

ORGANIZATION_ROUTES: Sequence[Route] = (
    Route("GET", API_ROOT + "/me", "getMe", me.me, responses={200: MeResponse}),
    Route(
        "GET",
        CLOSED_PERIOD_PATH,
        "getClosedPeriod",
        periods.get,
        query=PeriodQuery,
        request_headers=NOT_CHANGED,
        responses={200: PeriodHistoryResponse, 304: None},
    ),
    Route(
        "PUT",
        CLOSED_PERIOD_PATH,
        "changeClosedPeriod",
        periods.change,
        changes=True,
        bodies=(PeriodClosing,),
        request_headers=(*KEY, *MATCH),
        responses={200: PeriodResponse},
        refusals=("period_changed", *REUSED),
    ),
    Route(
        "GET",
        TEMPLATES,
        "listTemplates",
        templates.list_templates,
        query=TemplatesQuery,
        request_headers=NOT_CHANGED,
        responses={200: TemplatesResponse, 304: None},
    ),
    Route(
        "POST",
        TEMPLATES,
        "createTemplate",
        templates.create,
        changes=True,
        bodies=(NewTemplate,),
        request_headers=KEY,
        responses={201: TemplateResponse},
        refusals=("not_your_coordinator_id", "coordinator_unknown", "template_deleted", *REUSED),
    ),
    Route(
        "GET",
        TEMPLATES + "/{template_id}",
        "getTemplate",
        templates.get,
        request_headers=NOT_CHANGED,
        responses={200: TemplateResponse, 304: None},
    ),
    Route(
        "PUT",
        TEMPLATES + "/{template_id}",
        "replaceTemplate",
        templates.replace,
        changes=True,
        bodies=(TemplateChange,),
        request_headers=MATCH,
        responses={200: TemplateResponse},
        refusals=("template_changed",),
    ),
    Route(
        "DELETE",
        TEMPLATES + "/{template_id}",
        "deleteTemplate",
        templates.delete,
        changes=True,
        request_headers=MATCH,
        responses={204: None},
        refusals=("template_changed",),
    ),
    Route(
        "GET",
        DIRECTORY + "/mentors",
        "listMentors",
        directory.mentors,
        query=MentorsQuery,
        request_headers=NOT_CHANGED,
        responses={200: MentorsResponse, 304: None},
        refusals=_NOT_ONES_SCOPE,
    ),
    Route(
        "GET",
        DIRECTORY + "/chapters",
        "listChapters",
        directory.chapters,
        query=ChaptersQuery,
        request_headers=NOT_CHANGED,
        responses={200: ChaptersResponse, 304: None},
        refusals=_NOT_ONES_SCOPE,
    ),
    Route(
        "GET",
        DIRECTORY + "/activity-types",
        "listActivityTypes",
        directory.activity_types,
        query=DirectoryQuery,
        request_headers=NOT_CHANGED,
        responses={200: ActivityTypesResponse, 304: None},
    ),
    Route(
        "GET",
        DIRECTORY + "/coordinators",
        "listCoordinators",
        directory.coordinators,
        query=CoordinatorsQuery,
        request_headers=NOT_CHANGED,
        responses={200: CoordinatorsResponse, 304: None},
        refusals=("role_may_not",),
    ),
    Route(
        "POST",
        FORGETTINGS_PATH,
        "forgetMentor",
        forgetting.ask,
        changes=True,
        bodies=(MentorToForget,),
        responses={202: ForgettingResponse},
        refusals=("mentor_in_running_batch", "mentor_coordinates", "mentor_unknown"),
    ),
    Route(
        "GET",
        FORGETTINGS_PATH + "/{forgetting_id}",
        "getForgetting",
        forgetting.get,
        responses={200: ForgettingResponse},
        refusals=("role_may_not", "forgetting_not_found"),
    ),
)
